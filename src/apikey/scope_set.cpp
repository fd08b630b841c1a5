// Scope names, what grants what, and the encoded set of a key. The bytes are described in scope_set.hpp.
// Called by the decision per request, by keyloader when scopes are written down, by the module's configuration.
// Never reads past an encoded set: decode() has walked it once before anything is taken from it.
#include "apikey/scope_set.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "apikey/little_endian.hpp"

namespace apikey {
namespace {

constexpr std::size_t kCountSize = 2;
constexpr std::size_t kLengthSize = 2;
constexpr std::size_t kNear = 2;
constexpr std::string_view kReservedStem = "apikey:";

bool is_scope_char(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
         c == '/' || c == '-';
}

std::string_view without_last(std::string_view text, std::size_t n) noexcept {
  text.remove_suffix(n);
  return text;
}

// The scope behind its length. REQUIRES: `at` points to an entry of a set that was walked.
std::string_view scope_at(const std::byte* at) noexcept {
  const auto length = load_le<std::uint16_t>({at, kLengthSize}, 0);
  return {static_cast<const char*>(static_cast<const void*>(at + kLengthSize)), length};
}

// How many characters have to be put in, taken out or replaced. REQUIRES: neither is longer than kMaxScopeLength.
// RETURNS: more than kNear for whatever is more.
std::size_t distance_of(std::string_view a, std::string_view b) noexcept {
  if (a.size() > b.size() + kNear || b.size() > a.size() + kNear) {
    return kNear + 1;
  }
  std::array<std::size_t, kMaxScopeLength + 1> row;  // of the distances of a's beginning to each beginning of b
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

bool is_valid_scope(std::string_view scope) noexcept {
  if (scope.empty() || scope.size() > kMaxScopeLength || scope.front() == ':' || scope.back() == ':') {
    return false;
  }
  char before = 0;
  for (const char c : scope) {
    if (c == ':' ? before == ':' : !is_scope_char(c)) {
      return false;
    }
    before = c;
  }
  return true;
}

bool is_valid_grant(std::string_view grant) noexcept {
  if (grant == "*") {
    return true;
  }
  if (grant.ends_with(":*")) {
    return grant.size() <= kMaxScopeLength && is_valid_scope(without_last(grant, 2));
  }
  return is_valid_scope(grant);
}

bool is_reserved_scope(std::string_view scope) noexcept { return scope.starts_with(kReservedStem); }

bool scope_grants(std::string_view grant, std::string_view required) noexcept {
  if (grant == "*") {
    return !is_reserved_scope(required);
  }
  if (!grant.ends_with(":*")) {
    return grant == required;
  }
  const std::string_view stem = without_last(grant, 1);  // `a:`
  return required.size() > stem.size() && required.starts_with(stem);
}

bool ScopeSet::decode(std::span<const std::byte> payload, ScopeSet& set) noexcept {
  if (payload.size() < kCountSize) {
    return false;
  }
  const std::size_t count = load_le<std::uint16_t>(payload, 0);
  auto rest = payload.subspan(kCountSize);
  const std::byte* const first = rest.data();
  std::string_view before;
  for (std::size_t i = 0; i < count; ++i) {
    if (rest.size() < kLengthSize) {
      return false;
    }
    const std::size_t length = load_le<std::uint16_t>(rest, 0);
    if (length > rest.size() - kLengthSize) {
      return false;
    }
    const std::string_view scope = scope_at(rest.data());
    if (!is_valid_grant(scope) || (i > 0 && scope <= before)) {
      return false;
    }
    before = scope;
    rest = rest.subspan(kLengthSize + length);
  }
  if (!rest.empty() || count > kMaxScopesPerSet) {
    return false;
  }
  set.first_ = first;
  set.last_ = rest.data();
  set.count_ = count;
  return true;
}

bool ScopeSet::grants(std::string_view required) const noexcept {
  for (auto it = begin(); it != end(); ++it) {
    // '*' sorts before every character that may stand in its place: what grants `required` never sorts behind it.
    if (*it > required) {
      return false;
    }
    if (scope_grants(*it, required)) {
      return true;
    }
  }
  return false;
}

std::string_view ScopeSet::Iterator::operator*() const noexcept { return scope_at(at_); }

ScopeSet::Iterator& ScopeSet::Iterator::operator++() noexcept {
  at_ += kLengthSize + scope_at(at_).size();
  return *this;
}

ScopeSet::Iterator ScopeSet::begin() const noexcept {
  Iterator it;
  it.at_ = first_;
  return it;
}

ScopeSet::Iterator ScopeSet::end() const noexcept {
  Iterator it;
  it.at_ = last_;
  return it;
}

std::string_view nearest_scope(const ScopeSet& known, std::string_view scope) noexcept {
  std::string_view nearest;
  std::size_t least = std::min(kNear, scope.size() / 3) + 1;
  for (auto it = known.begin(); it != known.end(); ++it) {
    if (const std::size_t distance = distance_of(*it, scope); distance < least) {
      least = distance;
      nearest = *it;
    }
  }
  return nearest;
}

std::size_t encoded_scopes_size(std::span<const std::string_view> scopes) noexcept {
  std::size_t size = kCountSize;
  for (const std::string_view scope : scopes) {
    size += kLengthSize + scope.size();
  }
  return size;
}

void encode_scopes(std::span<const std::string_view> scopes, std::span<std::byte> out) noexcept {
  store_le(out, 0, static_cast<std::uint16_t>(scopes.size()));
  std::size_t at = kCountSize;
  for (const std::string_view scope : scopes) {
    store_le(out, at, static_cast<std::uint16_t>(scope.size()));
    const auto text = std::as_bytes(std::span(scope));
    std::copy(text.begin(), text.end(), out.begin() + static_cast<std::ptrdiff_t>(at + kLengthSize));
    at += kLengthSize + scope.size();
  }
}

}  // namespace apikey
