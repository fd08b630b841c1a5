// What nginx counts of quotas, by the same arithmetic that it decides with. Called by what shows quotas.
#include "quota_use.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "limit_text.hpp"

namespace keyloader {
namespace {

constexpr std::uint64_t kPerCent = 100;

apikey::WallUs wall_us() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count())};
}

Seconds seconds_of(apikey::WallUs now) { return static_cast<Seconds>(now.value / 1'000'000); }

apikey::QuotaOrder order_of(const Limit& quota, const Adjustment& adjustment, Seconds now) {
  apikey::QuotaOrder order;
  order.amount = quota.amount + adjustment.granted;
  order.granted = adjustment.granted;
  order.cost = 0;
  if (const auto window = window_of(quota, adjustment, now)) {
    order.window = *window;
  } else {
    order.period_ns = quota.period_ns;
    order.window.begin = {adjustment.last_reset};
  }
  return order;
}

}  // namespace

Adjustment adjustment_of(const Adjustments& adjustments, const std::string& quota, Seconds now) {
  Adjustment adjustment{.quota = quota};
  for (const Adjustment& each : adjustments) {
    if (each.quota == quota) {
      adjustment = each;
    }
  }
  if (adjustment.granted_until <= now) {
    adjustment.granted = 0;
    adjustment.granted_until = 0;
  }
  return adjustment;
}

std::optional<apikey::Window> window_of(const Limit& quota, const Adjustment& adjustment, Seconds now) {
  if (quota.kind != apikey::LimitKind::calendar_quota) {
    return std::nullopt;
  }
  return apikey::begun_anew(apikey::window_at(quota.unit, {now}), {adjustment.last_reset}, {now});
}

std::uint64_t QuotaUse::percent() const { return amount == 0 ? kPerCent : used * kPerCent / amount; }

QuotaMeter::QuotaMeter(const Session& session) {
  const Nodes nodes(session.dir(), session.runtime);
  nodes_ = read_quotas(nodes);
  if (const Node* const hidden = nodes.hidden()) {
    hidden_ = hidden->hidden_sentence();
  }
}

std::optional<QuotaUse> QuotaMeter::read(const Limit& quota, const Adjustment& adjustment,
                                         std::span<const std::uint8_t> id) const {
  if (nodes_.empty()) {
    return std::nullopt;
  }
  const apikey::WallUs now = wall_us();
  QuotaUse use;
  for (const NodeQuotas& node : nodes_) {
    apikey::QuotaOrder order = order_of(quota, adjustment, seconds_of(now));
    order.subject = node.table().subject(quota.name, id);
    const apikey::QuotaResult result = node.table().look(order, now);
    NodeUse of_node{.node = node.node(),
                    .is_live = node.is_live(),
                    .used = order.amount - std::min(order.amount, result.remaining),
                    .left = result.remaining};
    if (order.period_ns == 0) {
      // What was settled afterwards may be more than the amount.
      order.amount = apikey::kMaxQuotaAmount;
      of_node.used = order.amount - node.table().look(order, now).remaining;
    }
    const auto in_seconds = static_cast<Seconds>((result.reset_ns + apikey::kNsPerSecond - 1) / apikey::kNsPerSecond);
    use.used += of_node.used;
    use.left += of_node.left;
    use.amount += quota.amount + adjustment.granted;
    use.resets = std::max(use.resets, in_seconds == 0 ? 0 : seconds_of(now) + in_seconds);
    use.nodes.push_back(std::move(of_node));
  }
  if (const auto window = window_of(quota, adjustment, seconds_of(now))) {
    use.resets = window->end.value;
  }
  return use;
}

std::string QuotaMeter::remark() const {
  if (nodes_.empty()) {
    return hidden_.empty() ? "What was used is not known: no nginx here counts it."
                           : fmt::format("What was used is not known: {}.", hidden_);
  }
  const NodeQuotas& first = nodes_.front();
  if (!first.is_live()) {
    return fmt::format("{} counted this last, and goes on with it when it starts.", first.node());
  }
  std::string text;
  if (nodes_.size() > 1) {
    text = fmt::format("{} nginx count, each for itself; the numbers are their sum.", nodes_.size());
  }
  return hidden_.empty() ? text
                         : fmt::format("{}{}One more is not counted in: {}.", text, text.empty() ? "" : " ", hidden_);
}

Json to_json(const std::optional<QuotaUse>& use) {
  Json json{{"used", nullptr}, {"left", nullptr}, {"percent", nullptr}, {"resets", nullptr}, {"nginx", Json::array()}};
  if (use) {
    json["used"] = use->used;
    json["left"] = use->left;
    json["percent"] = use->percent();
    json["resets"] = time_json(use->resets);
    for (const NodeUse& node : use->nodes) {
      json["nginx"].push_back({{"name", node.node}, {"live", node.is_live}, {"used", node.used}, {"left", node.left}});
    }
  }
  return json;
}

std::string use_text(const QuotaUse& use) {
  std::string text = fmt::format("{} used, {} left ({} %)", use.used, use.left, use.percent());
  if (use.resets != 0) {
    text += ", resets " + time_text(use.resets);
  }
  return text;
}

}  // namespace keyloader
