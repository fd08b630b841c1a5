// The shared zone: one adoption state per store, the counters, the table of buckets. Laid out once when the zone is
// new, adopted as it is by a reload. Nothing here allocates after init; nothing in it is a pointer.
#pragma once

#include <atomic>
#include <cstdint>

#include "apikey/adoption.hpp"
#include "apikey/bucket_table.hpp"
#include "apikey/verdict.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// How the credential looked, for metrics.
enum class CredentialForm : std::uint8_t { none, own, foreign };
inline constexpr std::size_t kCredentialForms = 3;

// Adds the zone to the configuration. RETURNS: null with an error logged.
ngx_shm_zone_t* add_zone(ngx_conf_t* cf, ngx_str_t* name, std::size_t size) noexcept;

// Attached memory of the running configuration; only valid in a worker (after init_zone).
const BucketTable& bucket_table(const MainConf& conf) noexcept;
Adoption& adoption_of(const MainConf& conf, const StoreConf& store) noexcept;

// Counters: sharded by worker, relaxed additions, never reset by a reload.
void count_request(const MainConf& conf, Outcome outcome, std::string_view env, CredentialForm form) noexcept;
void count_limited(const MainConf& conf, std::string_view plan, std::string_view limit) noexcept;
void observe_decision(const MainConf& conf, std::uint64_t ns) noexcept;  // called for one request in 64
void count_adoption(const MainConf& conf, const StoreConf& store, AdoptionResult result, std::uint64_t ns) noexcept;

}  // namespace apikey::nginx
