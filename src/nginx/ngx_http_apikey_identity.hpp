// Who the recognised key is, as texts: what variables, log lines and identity headers show.
// Called by _vars, _reply, _content. Looked up in the pinned snapshot when first asked for.
#pragma once

#include <string_view>

#include "apikey/authenticator.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// LIFETIME: the request pool's. Copies, because nginx keeps the values of variables while others are computed, and one
// of those may be what makes the request enter another store.
struct Identity {
  bool is_looked_up = false;
  std::string_view id;
  std::string_view name;
  std::string_view owner;
  std::string_view plan;
  std::string_view env;
  std::string_view meta;    // a JSON object of strings
  std::string_view scopes;  // separated by a space
};

// Fills `identity` unless that was done before. REQUIRES: known.has_record. What cannot be read stays empty.
// RETURNS: false without memory.
bool look_up(ngx_pool_t* pool, const Snapshot& snapshot, const Recognition& known, Identity& identity) noexcept;

}  // namespace apikey::nginx
