// What stands for a hidden key: `apikey:` and 16 hexadecimal digits, always the same for the same key on this node. So
// what neighbours compute from $http_x_api_key (a limit, the key of a cache, a log line) still tells clients apart.
// nginx's variables of hidden places are answered here; until the key of a request was hidden, and everywhere else,
// they say what they said before.
#pragma once

#include <array>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

struct RequestCtx;

// One of nginx's variables, taken over in postconfiguration.
struct HiddenVariable {
  ngx_str_t name;  // in lower case
  ngx_http_get_variable_pt before;
  uintptr_t data;
};

// SipHash of a credential with the seed of the node.
using Pseudonym = std::uint64_t;

inline constexpr std::size_t kPseudonymSize = sizeof("apikey:") - 1 + 16;
using PseudonymText = std::array<char, kPseudonymSize>;

// What a variable shows of a request whose key was hidden. In the request's pool.
struct HiddenValue {
  const HiddenVariable* variable;
  Pseudonym pseudonym;
  ngx_str_t text;  // shown instead, unless empty
  HiddenValue* next;
};

Pseudonym pseudonym_of(ngx_http_request_t* r, std::string_view credential) noexcept;
PseudonymText pseudonym_text(Pseudonym pseudonym) noexcept;

// From now on `variable` shows the pseudonym in this request; nothing happens when it is null or shows one already.
// RETURNS: false without memory.
bool remember_hidden(ngx_http_request_t* r, RequestCtx& ctx, const HiddenVariable* variable, Pseudonym pseudonym,
                     ngx_str_t text = {0, nullptr}) noexcept;

// Takes over the variables of all hidden places; warns once of each that is referred to.
ngx_int_t install_hidden_variables(ngx_conf_t* cf, MainConf& main) noexcept;

}  // namespace apikey::nginx
