// A quota as it stands: what was granted and reset, and what nginx says was used of it.
// Used by `quota`, `key show`, `owner show` and `usage --over`.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apikey/quota_window.hpp"
#include "limit_rules.hpp"
#include "node_tables.hpp"
#include "session.hpp"

namespace keyloader {

// What counts at `now`: a grant that is over is gone.
[[nodiscard]] Adjustment adjustment_of(const Adjustments& adjustments, const std::string& quota, Seconds now);

// The window of a calendar quota, begun anew by a reset; nothing for a rolling one.
[[nodiscard]] std::optional<apikey::Window> window_of(const Limit& quota, const Adjustment& adjustment, Seconds now);

// Each nginx counts for itself, and allows the whole amount.
struct NodeUse {
  std::string node;
  bool is_live = false;
  std::uint64_t used = 0;
  std::uint64_t left = 0;
};

// Of all of them together.
struct QuotaUse {
  std::uint64_t used = 0;
  std::uint64_t left = 0;
  std::uint64_t amount = 0;  // grants included, once for each nginx
  Seconds resets = 0;        // when all of it is there again; 0: it is
  std::vector<NodeUse> nodes;

  [[nodiscard]] std::uint64_t percent() const;
};

class QuotaMeter {
 public:
  explicit QuotaMeter(const Session& session);

  // `id`: of the family, or of the owner. RETURNS: nothing where no nginx counts it.
  [[nodiscard]] std::optional<QuotaUse> read(const Limit& quota, const Adjustment& adjustment,
                                             std::span<const std::uint8_t> id) const;
  [[nodiscard]] bool knows_anything() const { return !nodes_.empty(); }
  // Where the numbers come from, when that is not one nginx that runs; else empty.
  [[nodiscard]] std::string remark() const;

 private:
  std::vector<NodeQuotas> nodes_;
  std::string hidden_;
};

// `used`, `left`, `percent`, `resets`, `nginx`: an element for each. All null where nobody counts.
[[nodiscard]] Json to_json(const std::optional<QuotaUse>& use);
// "900 used, 100 left (90 %), resets 2026-12-01T00:00:00Z".
[[nodiscard]] std::string use_text(const QuotaUse& use);

}  // namespace keyloader
