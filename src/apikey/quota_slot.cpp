// The arithmetic of quotas: calendar windows, rolling quotas, and clocks that are set back.
// Called by the steps of quota_set.hpp. Touches no memory but its arguments.
#include "apikey/quota_slot.hpp"

#include <bit>

namespace apikey {

namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kUsPerSecond = 1'000'000;
constexpr std::uint64_t kEpochUs = static_cast<std::uint64_t>(kRollingEpoch) * kUsPerSecond;
// A rolling quota that is asked for owes no more than this many times its size, so that no wrong clock locks anybody
// out for ever.
constexpr std::uint64_t kMostSizesOwed = 16;
// Time stands still here (2053), with room for arrival times above it: what comes later is refused, not let in.
constexpr std::uint64_t kLastRollingUs = kMaxQuotaValue - (std::uint64_t{1} << 46U);

constexpr UnixSec seconds_of(WallUs now) noexcept { return {static_cast<std::int64_t>(now.value / kUsPerSecond)}; }
constexpr std::uint64_t rolling_now(WallUs now) noexcept {
  return std::min(now.value - std::min(now.value, kEpochUs), kLastRollingUs);
}
constexpr bool is_ahead(UnixSec begin, UnixSec now) noexcept { return begin.value > now.value + kClockTolerance; }
constexpr std::uint64_t ns_until(UnixSec end, WallUs now) noexcept {
  const std::uint64_t end_us = static_cast<std::uint64_t>(std::max<std::int64_t>(end.value, 0)) * kUsPerSecond;
  return end_us > now.value ? (end_us - now.value) * 1000 : 0;
}

// How a rolling quota is counted.
struct Grains {
  std::uint64_t amount = 1;  // per period
  std::uint64_t period_us = 1;
  unsigned shift = 0;  // a token is 2^shift grains

  explicit Grains(const QuotaOrder& order) noexcept
      : amount(std::clamp<std::uint64_t>(order.amount - std::min(order.amount, order.granted), 1, kMaxQuotaValue)),
        period_us(std::clamp<std::uint64_t>(order.period_ns / 1000 + (order.period_ns % 1000 != 0 ? 1 : 0), 1,
                                            kMaxRollingPeriodNs / 1000)) {
    const std::uint64_t us_per_token = period_us / amount;
    shift = us_per_token == 0 ? 0 : static_cast<unsigned>(std::bit_width(us_per_token)) - 1;
  }
  [[nodiscard]] Wide whole() const noexcept { return Wide{amount} << shift; }
  // Beyond what a slot can say all costs are one.
  [[nodiscard]] Wide price(std::uint64_t cost) const noexcept {
    return std::min(Wide{cost} << shift, at(kMaxQuotaValue));
  }
  [[nodiscard]] Wide at(std::uint64_t time_us) const noexcept { return whole() * time_us / period_us; }
  // The first moment at which so many have come.
  [[nodiscard]] std::uint64_t time_of(Wide grains) const noexcept {
    const Wide time = (grains * period_us + whole() - 1) / whole();
    return time > kMaxQuotaValue ? kMaxQuotaValue : static_cast<std::uint64_t>(time);
  }
};

QuotaUse rolling_under(const QuotaUse& slot, const QuotaOrder& order, WallUs now) noexcept {
  const UnixSec now_sec = seconds_of(now);
  const std::uint64_t now_us = rolling_now(now);
  const UnixSec reset = order.window.begin;
  QuotaUse use = slot;
  if (slot.kind != kRollingKind) {
    use = {kRollingKind, {}, 0};
  }
  if (reset > use.begin && reset <= now_sec) {
    use.begin = reset;
    use.value = 0;
  } else if (is_ahead(use.begin, now_sec)) {
    const std::uint64_t step_us = static_cast<std::uint64_t>(use.begin.value - now_sec.value) * kUsPerSecond;
    use.value -= std::min(use.value, step_us);
    use.begin = now_sec;
  }
  if (use.value <= now_us) {
    // Whole: all that will be owed is taken from now on. The second before, so that a reset later in this one is seen.
    use.value = now_us;
    use.begin = std::max(use.begin, UnixSec{now_sec.value - 1});
  }
  return use;
}

QuotaUse calendar_under(const QuotaUse& slot, const QuotaOrder& order, WallUs now) noexcept {
  const Window& window = order.window;
  const auto unit_of = [&](UnixSec begin) { return static_cast<std::uint8_t>(unit_reaching(begin, window.end)); };
  const bool is_calendar = slot.kind != kTentativeKind && slot.kind != kRollingKind;
  if (!is_calendar || window.begin > slot.begin) {
    return {unit_of(window.begin), window.begin, 0};
  }
  if (window.begin < slot.begin && is_ahead(slot.begin, seconds_of(now))) {
    return {unit_of(window.begin), window.begin, slot.value};
  }
  // A worker whose clock, or whose snapshot, is a little behind: it counts in the window that has begun already.
  QuotaUse use = slot;
  if (end_of(slot) < window.end) {
    use.kind = unit_of(slot.begin);
  }
  return use;
}

std::uint64_t most_owed(const QuotaOrder& order, WallUs now) noexcept {
  const Grains grains(order);
  const Wide size_us = Wide{grains.period_us} * ((Wide{order.amount} + grains.amount - 1) / grains.amount);
  return rolling_now(now) + static_cast<std::uint64_t>(std::min(size_us * kMostSizesOwed, Wide{kMaxQuotaValue}));
}

QuotaResult rolling_result(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept {
  const Grains grains(order);
  const std::uint64_t now_us = rolling_now(now);
  const Wide limit = grains.at(now_us) + (Wide{order.amount} << grains.shift);
  const Wide owed = grains.at(use.value);
  QuotaResult result;
  result.status = QuotaResult::Status::admitted;
  result.remaining =
      order.amount == 0 || owed >= limit ? 0 : static_cast<std::uint64_t>((limit - owed) >> grains.shift);
  result.reset_ns = (use.value - now_us) * 1000;
  result.taken_us = use.value;
  return result;
}

QuotaResult calendar_result(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept {
  QuotaResult result;
  result.status = QuotaResult::Status::admitted;
  result.remaining = order.amount - std::min(order.amount, use.value);
  result.reset_ns = ns_until(use.begin > order.window.begin ? end_of(use) : order.window.end, now);
  return result;
}

QuotaResult result_of(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept {
  return use.kind == kRollingKind ? rolling_result(use, order, now) : calendar_result(use, order, now);
}

// Until `cost` is there, when nobody else takes.
std::uint64_t wait_of(const QuotaUse& use, const QuotaOrder& order, const QuotaResult& result, WallUs now) noexcept {
  if (order.cost > order.amount) {
    return UINT64_MAX;
  }
  std::uint64_t wait_ns = result.reset_ns;
  if (use.kind == kRollingKind) {
    const Grains grains(order);
    const std::uint64_t now_us = rolling_now(now);
    const Wide needed = grains.at(use.value) + grains.price(order.cost);
    const std::uint64_t free_at = grains.time_of(needed - std::min(needed, Wide{order.amount} << grains.shift));
    wait_ns = (free_at - std::min(free_at, now_us)) * 1000;
  }
  return std::max<std::uint64_t>(wait_ns, 1000);
}

}  // namespace

QuotaOrder order_at(const QuotaOrder& order, WallUs now) noexcept {
  const UnixSec now_sec = seconds_of(now);
  QuotaOrder current = order;
  if (order.period_ns == 0 && (order.window.end <= now_sec || is_ahead(order.window.begin, now_sec))) {
    current.window = window_at(unit_reaching(order.window.begin, order.window.end), now_sec);
  }
  return current;
}

QuotaUse use_under(const QuotaUse& slot, const QuotaOrder& order, WallUs now) noexcept {
  return order.period_ns != 0 ? rolling_under(slot, order, now) : calendar_under(slot, order, now);
}

QuotaStep charge_to(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept {
  QuotaStep step{use, {}};
  if (order.cost != 0 && use.kind == kRollingKind && order.amount != 0) {
    const Grains grains(order);
    step.use.value = grains.time_of(grains.at(use.value) + grains.price(order.cost));
  } else if (order.cost != 0 && use.kind != kRollingKind) {
    step.use.value += std::min(order.cost, kMaxQuotaValue - use.value);
  }
  step.result = result_of(step.use, order, now);
  return step;
}

QuotaStep take_from(const QuotaUse& use, const QuotaOrder& order, WallUs now) noexcept {
  QuotaStep step{use, {}};
  if (use.kind == kRollingKind) {
    step.use.value = std::min(use.value, most_owed(order, now));
  }
  step.result = result_of(step.use, order, now);
  if (order.cost <= step.result.remaining) {
    return charge_to(step.use, order, now);
  }
  step.result.status = QuotaResult::Status::refused;
  step.result.retry_after_ns = wait_of(step.use, order, step.result, now);
  return step;
}

QuotaUse give_back_to(const QuotaUse& slot, const QuotaOrder& order, WallUs now) noexcept {
  QuotaUse use = slot;
  const std::uint64_t now_us = rolling_now(now);
  if (order.period_ns == 0) {
    const bool is_same = slot.kind != kTentativeKind && slot.kind != kRollingKind && slot.begin == order.window.begin;
    use.value -= is_same ? std::min(order.cost, slot.value) : 0;
  } else if (slot.kind == kRollingKind && order.taken_us > now_us && order.amount != 0) {
    const Grains grains(order);
    const Wide owed = grains.at(slot.value);
    const std::uint64_t least = slot.value - std::min(slot.value, order.taken_us - now_us);
    use.value = std::max(grains.time_of(owed - std::min(owed, grains.price(order.cost))), least);
  }
  return use;
}

UnixSec end_of(const QuotaUse& slot) noexcept {
  if (slot.kind == kRollingKind) {
    return {kRollingEpoch + static_cast<std::int64_t>((slot.value + kUsPerSecond - 1) / kUsPerSecond)};
  }
  return slot.kind == kTentativeKind ? UnixSec{0} : window_at(static_cast<CalendarUnit>(slot.kind), slot.begin).end;
}

bool is_over(const QuotaUse& slot, WallUs now) noexcept {
  return end_of(slot).value + kClockTolerance <= seconds_of(now).value;
}

}  // namespace apikey
