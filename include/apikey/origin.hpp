// Web origins (RFC 6454) and host names, with a wildcard for the leading labels: `https://*.example.com`.
// Called by keyloader (what people write) and by binding (what a request says).
// Both sides go through the same normalisation, so that comparing is comparing bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "apikey/status.hpp"

namespace apikey {

inline constexpr std::size_t kMaxOriginLength = 255;

// Lower-cases and checks `scheme://host[:port]` with an optional leading "*." label; takes a default port away, as
// browsers do. RETURNS: bad_value otherwise. The result is a view into `out`, kMaxOriginLength bytes always suffice.
Status normalize_origin(std::string_view text, std::span<char> out, std::string_view& origin) noexcept;
Status normalize_host(std::string_view text, std::span<char> out, std::string_view& host) noexcept;

// The origin a URL (a Referer) begins with: everything up to its path; empty when it has none.
[[nodiscard]] std::string_view origin_of(std::string_view url) noexcept;

// `*.example.com` stands for any name below example.com, at any depth, not for example.com itself.
// REQUIRES: both normalized, no wildcard in what is matched.
[[nodiscard]] bool matches_origin(std::string_view pattern, std::string_view origin) noexcept;
[[nodiscard]] bool matches_host(std::string_view pattern, std::string_view host) noexcept;

}  // namespace apikey
