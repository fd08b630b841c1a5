// Scopes: names of segments joined by ':', each segment 1 or more of [A-Za-z0-9_.*/-] where '*' stands alone.
//   orders:read   a plain scope        orders:*   grants orders:read and orders:read:own
//   *             grants all but reserved scopes, those that begin with `apikey:`
// '*' is only allowed as the last segment of a grant, and never in what a location requires.
//
// A scope set as it stands in table `scopes`: u16 count, then for each scope, in byte order: u16 length, bytes.
// Row 0 is no key's set: it names every scope the registry knows, so that the module can warn of unknown ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace apikey {

inline constexpr std::size_t kMaxScopeLength = 128;
inline constexpr std::size_t kMaxScopesPerSet = 1000;

[[nodiscard]] bool is_valid_scope(std::string_view scope) noexcept;  // may be required: no '*'
[[nodiscard]] bool is_valid_grant(std::string_view grant) noexcept;  // may be held by a key

// Scopes that begin with `apikey:` say what may be done with the keys themselves; `*` does not contain them.
[[nodiscard]] bool is_reserved_scope(std::string_view scope) noexcept;

// `a:*` grants `a:b` and `a:b:c`, not `a`; `*` grants everything that is not reserved.
[[nodiscard]] bool scope_grants(std::string_view grant, std::string_view required) noexcept;

// A view of an encoded set; empty by default. LIFETIME: the snapshot's.
class ScopeSet {
 public:
  ScopeSet() noexcept = default;
  // RETURNS: false when lengths or order are wrong or a grant is not valid.
  [[nodiscard]] static bool decode(std::span<const std::byte> payload, ScopeSet& set) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] bool grants(std::string_view required) const noexcept;

  // for (auto it = set.begin(); it != set.end(); ++it) *it is a string_view
  class Iterator {
   public:
    [[nodiscard]] std::string_view operator*() const noexcept;
    Iterator& operator++() noexcept;
    friend bool operator==(const Iterator&, const Iterator&) = default;

   private:
    friend class ScopeSet;
    const std::byte* at_ = nullptr;
  };
  [[nodiscard]] Iterator begin() const noexcept;
  [[nodiscard]] Iterator end() const noexcept;

 private:
  const std::byte* first_ = nullptr;
  const std::byte* last_ = nullptr;
  std::size_t count_ = 0;
};

// The scope of `known` that differs from `scope` in the fewest characters; empty: none does in
// two or less, or in a third of a short one.
[[nodiscard]] std::string_view nearest_scope(const ScopeSet& known, std::string_view scope) noexcept;

// Bytes an encoded set takes, and the encoding itself. REQUIRES: `scopes` sorted bytewise without doubles, all
// valid grants, out.size() == encoded_scopes_size(scopes).
[[nodiscard]] std::size_t encoded_scopes_size(std::span<const std::string_view> scopes) noexcept;
void encode_scopes(std::span<const std::string_view> scopes, std::span<std::byte> out) noexcept;

}  // namespace apikey
