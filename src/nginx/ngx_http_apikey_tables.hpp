// The tables that lie in the memory which outlives nginx, and taking over what stood in others.
// Called by the master while it configures (ngx_http_apikey_state.cpp); workers only use the tables.
#pragma once

#include <cstdint>
#include <span>

#include "apikey/checkpoint.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/usage_table.hpp"

namespace apikey::nginx {

struct StateTables {
  QuotaTable quotas;
  UsageTable usage;
};

// `memory`: all of it, a page of header first. RETURNS: false when another layout or no table lies there.
[[nodiscard]] bool attach_tables(std::span<std::byte> memory, StateTables& tables) noexcept;
// Empty ones. RETURNS: false when there is no room, or no randomness to be had.
[[nodiscard]] bool format_tables(std::span<std::byte> memory, const SipKey& seed, StateTables& tables) noexcept;

struct Carried {
  std::uint64_t quotas = 0;
  std::uint64_t usage = 0;  // rows
  std::uint64_t lost = 0;   // of both, for which there was no room
};
// Into tables that nobody uses yet, formatted with the seed of the others. `gap`: as UsageTable::restore().
Carried carry_over(const StateTables& from, UsageGap gap, const StateTables& to) noexcept;
Carried carry_over(const Checkpoint& from, UsageGap gap, const StateTables& to) noexcept;

}  // namespace apikey::nginx
