// Who the recognised key is, as texts: what variables, log lines and identity headers show.
// Called by _vars, _reply, _content. Looked up in the pinned snapshot when first asked for.
#pragma once

#include <string_view>

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// LIFETIME: the pinned snapshot's; after detach_identity() the request pool's.
struct Identity {
  bool is_looked_up = false;
  char id[kKeyIdTextLength] = {};
  std::string_view name;
  std::string_view owner;
  std::string_view plan;
  std::string_view env;
  std::string_view meta;    // a JSON object of strings
  std::string_view scopes;  // separated by a space, in the request's pool
};

// Fills `identity` unless that was done before. REQUIRES: known.has_record. What cannot be read stays empty.
void look_up(ngx_pool_t* pool, const Snapshot& snapshot, const Recognition& known, Identity& identity) noexcept;

// Copies every text into the pool, so that the snapshot can be unpinned. RETURNS: false without memory: nothing
// changed.
bool detach_identity(ngx_pool_t* pool, Identity& identity) noexcept;

inline std::string_view id_text(const Identity& identity) noexcept { return {identity.id, sizeof(identity.id)}; }

}  // namespace apikey::nginx
