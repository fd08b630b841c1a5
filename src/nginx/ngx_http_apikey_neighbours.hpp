// What modules of nginx beside this one have for a location or a server. They have no headers: what is read here is the
// beginning of what each keeps, which has not changed since nginx 1.3.
// Called while the configuration is finished, when all is merged.
#pragma once

#include <string_view>

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// RETURNS: null when this nginx has no such module. By name, as one that is not there could not be linked to.
[[nodiscard]] void* neighbour_conf(const ngx_cycle_t& cycle, void** confs, std::string_view module) noexcept;

// allow and deny.
[[nodiscard]] bool denies_somebody(const ngx_cycle_t& cycle, void** loc_confs) noexcept;
// Whatever address it is, and unix sockets too.
[[nodiscard]] bool denies_everybody(const ngx_cycle_t& cycle, void** loc_confs) noexcept;

// auth_basic, for every request: a realm with variables may turn out to be `off`.
[[nodiscard]] bool asks_for_password(const ngx_cycle_t& cycle, void** loc_confs) noexcept;

// The program of `set`, `if`, `rewrite` and `return` of a block; null: there is none.
[[nodiscard]] const ngx_array_t* rewrite_codes(const ngx_cycle_t& cycle, void** loc_confs) noexcept;

}  // namespace apikey::nginx
