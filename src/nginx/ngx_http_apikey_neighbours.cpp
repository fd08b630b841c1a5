// Reading what neighbours keep (see the header). Must never write to it.
#include "ngx_http_apikey_neighbours.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace apikey::nginx {
namespace {

// Of ngx_http_access_module: rules for IPv4, IPv6 and unix sockets, each a mask and an address, but for sockets, and
// last whether it denies.
struct AccessConf {
  ngx_array_t* rules;
#if (NGX_HAVE_INET6)
  ngx_array_t* rules6;
#endif
#if (NGX_HAVE_UNIX_DOMAIN)
  ngx_array_t* rules_un;
#endif
};
constexpr std::size_t kRuleLists = sizeof(AccessConf) / sizeof(ngx_array_t*);

// Of ngx_http_auth_basic_module. What it knows of the file with the passwords is, in all versions, nothing but zeros
// where there is none.
struct AuthBasicConf {
  ngx_http_complex_value_t* realm;
  ngx_uint_t file;
};

std::array<const ngx_array_t*, kRuleLists> lists_of(const AccessConf& access) noexcept {
  return {
    access.rules,
#if (NGX_HAVE_INET6)
        access.rules6,
#endif
#if (NGX_HAVE_UNIX_DOMAIN)
        access.rules_un
#endif
  };
}

struct Rule {
  bool denies;
  bool is_for_all;  // no bit of its mask is set
};

Rule rule_at(const ngx_array_t& rules, ngx_uint_t i) noexcept {
  const std::size_t network = rules.size - sizeof(ngx_uint_t);
  const char* bytes = byte_at(rules.elts, i * rules.size);
  ngx_uint_t denies = 0;
  ngx_memcpy(&denies, bytes + network, sizeof(denies));
  return {denies != 0, std::all_of(bytes, bytes + network, [](char c) { return c == 0; })};
}

bool has_deny(const ngx_array_t* rules) noexcept {
  for (ngx_uint_t i = 0; rules != nullptr && i < rules->nelts; ++i) {
    if (rule_at(*rules, i).denies) {
      return true;
    }
  }
  return false;
}

// The first rule that fits counts.
bool denies_all(const ngx_array_t* rules) noexcept {
  for (ngx_uint_t i = 0; rules != nullptr && i < rules->nelts; ++i) {
    const Rule rule = rule_at(*rules, i);
    if (!rule.denies || rule.is_for_all) {
      return rule.denies;
    }
  }
  return false;
}

const AccessConf* access_of(const ngx_cycle_t& cycle, void** loc_confs) noexcept {
  return static_cast<AccessConf*>(neighbour_conf(cycle, loc_confs, "ngx_http_access_module"));
}

}  // namespace

void* neighbour_conf(const ngx_cycle_t& cycle, void** confs, std::string_view module) noexcept {
  for (ngx_module_t* const* each = cycle.modules; *each != nullptr; ++each) {
    if ((*each)->name != nullptr && module == (*each)->name) {
      return confs[(*each)->ctx_index];
    }
  }
  return nullptr;
}

bool denies_somebody(const ngx_cycle_t& cycle, void** loc_confs) noexcept {
  const AccessConf* access = access_of(cycle, loc_confs);
  if (access == nullptr) {
    return false;
  }
  const auto lists = lists_of(*access);
  return std::any_of(lists.begin(), lists.end(), has_deny);
}

bool denies_everybody(const ngx_cycle_t& cycle, void** loc_confs) noexcept {
  const AccessConf* access = access_of(cycle, loc_confs);
  if (access == nullptr) {
    return false;
  }
  const auto lists = lists_of(*access);
  return std::all_of(lists.begin(), lists.end(), denies_all);
}

bool asks_for_password(const ngx_cycle_t& cycle, void** loc_confs) noexcept {
  const auto* basic = static_cast<AuthBasicConf*>(neighbour_conf(cycle, loc_confs, "ngx_http_auth_basic_module"));
  return basic != nullptr && basic->realm != nullptr && basic->realm->lengths == nullptr &&
         view(basic->realm->value) != "off" && basic->file != 0;
}

const ngx_array_t* rewrite_codes(const ngx_cycle_t& cycle, void** loc_confs) noexcept {
  const void* settings = neighbour_conf(cycle, loc_confs, "ngx_http_rewrite_module");
  return settings == nullptr ? nullptr : *static_cast<ngx_array_t* const*>(settings);
}

}  // namespace apikey::nginx
