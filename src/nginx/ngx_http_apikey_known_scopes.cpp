// Compares the locations of a store with the scopes that a snapshot knows.
// Called when a worker has opened its first snapshot: before, nobody knows which scopes there are.
#include "ngx_http_apikey_known_scopes.hpp"

#include <algorithm>
#include <array>

#include "apikey/scope_set.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kMostWarnings = 20;

// "order:read (did you mean orders:read?), x:y", as many as fit.
class Names {
 public:
  void add(std::string_view scope, std::string_view nearest) noexcept {
    u_char* const last = text_.data() + text_.size();
    end_ = ngx_slprintf(end_, last, "%s%*s", end_ == text_.data() ? "" : ", ", scope.size(), scope.data());
    if (!nearest.empty()) {
      end_ = ngx_slprintf(end_, last, " (did you mean %*s?)", nearest.size(), nearest.data());
    }
  }
  [[nodiscard]] bool is_empty() const noexcept { return end_ == text_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(end_ - text_.data()); }
  [[nodiscard]] const u_char* data() const noexcept { return text_.data(); }

 private:
  std::array<u_char, 1024> text_;
  u_char* end_ = text_.data();
};

Names unknown_scopes(const LocConf& location, const ScopeSet& known) noexcept {
  Names names;
  for (const ScopeLine& line : elements<ScopeLine>(location.scope_lines)) {
    for (const std::string_view scope : line.scopes) {
      if (!known.grants(scope)) {
        names.add(scope, nearest_scope(known, scope));
      }
    }
  }
  return names;
}

}  // namespace

void name_unknown_scopes(const StoreConf& store, const Snapshot& snapshot, ngx_log_t* log) noexcept {
  StoreRuntime& mine = *store.runtime;
  ScopeSet known;
  // Before the first key there is nothing to compare with.
  if (mine.has_named_scopes || ngx_worker != 0 || snapshot.meta().keys == 0 || !snapshot.known_scopes(known)) {
    return;
  }
  mine.has_named_scopes = true;
  std::size_t warnings = 0;
  const auto locations = elements<LocConf*>(mine.main->locations);
  for (std::size_t i = 0; i < locations.size(); ++i) {
    const LocConf& location = *locations[i];
    const auto is_same = [&](const LocConf* other) {
      return other->store == location.store && other->scope_lines == location.scope_lines;
    };
    const auto before = locations.first(i);
    if (location.store != &store || std::any_of(before.begin(), before.end(), is_same)) {
      continue;  // it has inherited its lines from one that was judged
    }
    const Names names = unknown_scopes(location, known);
    if (names.is_empty()) {
      continue;
    }
    if (++warnings > kMostWarnings) {
      ngx_log_error(NGX_LOG_WARN, log, 0, "apikey store \"%V\": other locations ask for scopes that no key has, too",
                    &store.name);
      return;
    }
    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "apikey store \"%V\": location \"%V\" asks for what no key has (apikey_scope): %*s", &store.name,
                  &location.location_name, names.size(), names.data());
  }
}

}  // namespace apikey::nginx
