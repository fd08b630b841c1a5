// What the configuration asks for, location by location, as node memory shows it: policies.hpp.
// Gathered by the master when all is read, while nginx still knows servers by their addresses; put into node memory
// when the configuration is committed.
#pragma once

#include <cstdint>
#include <span>

#include "apikey/binding.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// What nginx itself has for a location; `loc_confs`: of all modules.
[[nodiscard]] const ngx_http_core_loc_conf_t* core_of(void* const* loc_confs) noexcept;

// The methods that nginx's bits stand for; those that the core has no name for are left out.
[[nodiscard]] MethodSet our_methods(ngx_uint_t methods) noexcept;

// For every server and location that is merged, with apikey or without. RETURNS: false without memory.
bool note_policy_place(ngx_conf_t* cf, MainConf& main, LocConf& conf) noexcept;
// Fills main.policies. REQUIRES: all is merged. RETURNS: false without memory.
bool gather_policies(ngx_conf_t* cf, MainConf& main) noexcept;

}  // namespace apikey::nginx
