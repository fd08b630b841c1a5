// From words to limits. Called by the commands of plans, keys and owners, and by import.
// Must never let through an amount that a snapshot would refuse (is_consistent() in rows.cpp).
#include "limits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "apikey/flight_table.hpp"
#include "apikey/quota_table.hpp"
#include "apikey/rate_spec.hpp"
#include "data_dir.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

using apikey::CalendarUnit;
using apikey::LimitKind;

constexpr std::array kUnits = {CalendarUnit::minute, CalendarUnit::hour,  CalendarUnit::day,
                               CalendarUnit::week,   CalendarUnit::month, CalendarUnit::year};

// The option that a kind of limit is written with.
std::string_view option_of(LimitKind kind) {
  switch (kind) {
    case LimitKind::calendar_quota:
      return "--quota";
    case LimitKind::rolling_quota:
      return "--rolling-quota";
    case LimitKind::concurrency:
      return "--concurrency";
    default:
      return "--rate";
  }
}

std::string_view kind_name(LimitKind kind) {
  switch (kind) {
    case LimitKind::calendar_quota:
      return "quota";
    case LimitKind::rolling_quota:
      return "rolling quota";
    case LimitKind::concurrency:
      return "limit of requests at once";
    default:
      return "rate";
  }
}

// `NAME=VALUE`, or a value alone.
struct NamedValue {
  std::string name;
  std::string value;
};

NamedValue named_value(const std::string& word) {
  const std::size_t equals = word.find('=');
  if (equals == std::string::npos) {
    return {.name = {}, .value = word};
  }
  NamedValue named{.name = word.substr(0, equals), .value = word.substr(equals + 1)};
  check_label("limit", named.name);
  return named;
}

// `1000000/month` → both sides; false when there is no slash.
bool split_at_slash(const std::string& text, std::string& amount, std::string& period) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) {
    return false;
  }
  amount = text.substr(0, slash);
  period = text.substr(slash + 1);
  return true;
}

Limit parse_rate_limit(const std::string& text) {
  apikey::Rate rate;
  if (const auto status = apikey::parse_rate(text, rate); !status.ok()) {
    throw UsageError(fmt::format("--rate \"{}\": {}", text, sentence_of(status)));
  }
  return {.name = {}, .kind = LimitKind::rate, .amount = rate.amount, .period_ns = rate.period_ns};
}

Limit parse_calendar_quota(const std::string& text) {
  std::string amount;
  std::string period;
  const bool is_split = split_at_slash(text, amount, period);
  const auto unit =
      std::find_if(kUnits.begin(), kUnits.end(), [&](CalendarUnit each) { return unit_text(each) == period; });
  if (!is_split || unit == kUnits.end()) {
    throw UsageError(
        fmt::format("--quota \"{}\": a quota looks like 1000000/month; its window is a minute, hour, day, week, month "
                    "or year in UTC. 100/s is a --rate, 1000/30d a --rolling-quota",
                    text));
  }
  return {.name = {}, .kind = LimitKind::calendar_quota, .unit = *unit, .amount = parse_quota_amount(amount)};
}

Limit parse_rolling_quota(const std::string& text) {
  std::string amount;
  std::string period;
  if (!split_at_slash(text, amount, period)) {
    throw UsageError(fmt::format(
        "--rolling-quota \"{}\": a rolling quota looks like 1000/24h or 50000/30d; 1000/day is a --quota", text));
  }
  const auto seconds = static_cast<std::uint64_t>(parse_duration(period));
  if (seconds > apikey::kMaxRollingPeriodNs / apikey::kNsPerSecond) {
    throw UsageError(fmt::format("--rolling-quota \"{}\": its time is at most 366d", text));
  }
  return {.name = {},
          .kind = LimitKind::rolling_quota,
          .amount = parse_quota_amount(amount),
          .period_ns = seconds * apikey::kNsPerSecond};
}

std::uint64_t parse_amount(std::string_view what, const std::string& text, std::uint64_t most) {
  std::uint64_t amount = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount);
  if (error != std::errc{} || end != text.data() + text.size() || amount > most) {
    throw UsageError(fmt::format("\"{}\" is no {}: a whole number, 1 to {}", text, what, most));
  }
  if (amount == 0) {
    throw UsageError(fmt::format(
        "0 is no {}: it would let nothing through. `keyloader key suspend` stops a key, `none` takes a limit away",
        what));
  }
  return amount;
}

Limit parse_concurrency(const std::string& text) {
  return {.name = {},
          .kind = LimitKind::concurrency,
          .amount = parse_amount("number of requests at once", text, apikey::kMaxConcurrency)};
}

// The limits of one holder while they are changed: what is removed first, then what is set, then what is said of those.
class LimitEditor {
 public:
  LimitEditor(Limits& limits, LimitHolder holder) : limits_(limits), holder_(holder) {}

  void remove(LimitKind kind, const NamedValue& named) {
    const std::string name = name_to_remove(kind, named);
    if (name.empty()) {
      return;
    }
    const auto found = find(name);
    if (found == limits_.end()) {
      if (named.name.empty()) {
        return;
      }
      throw UsageError(fmt::format("there is no limit \"{}\" to remove here; {}", name, names_text()));
    }
    if (!is_same_option(found->kind, kind)) {
      throw UsageError(fmt::format("{} is a {} ({}); `{} {}=none` removes it", name, kind_name(found->kind),
                                   limit_text(*found), option_of(found->kind), name));
    }
    limits_.erase(found);
  }

  void set(Limit limit) {
    if (std::find(set_.begin(), set_.end(), limit.name) != set_.end()) {
      throw UsageError(fmt::format("limit {} is set twice; give one of them another name: `{} NAME=…`", limit.name,
                                   option_of(limit.kind)));
    }
    set_.push_back(limit.name);
    const auto found = find(limit.name);
    if (found == limits_.end()) {
      limits_.push_back(limit);
      return;
    }
    if (found->kind != limit.kind) {
      throw UsageError(
          fmt::format("{} is a {} already ({}): give the new one another name, or remove the old one with `{} {}=none`",
                      limit.name, kind_name(found->kind), limit_text(*found), option_of(found->kind), limit.name));
    }
    limit.is_dry_run = found->is_dry_run;
    // A size that was written stays when only the rate changes.
    limit.burst = found->burst;
    *found = limit;
  }

  void set_burst(const NamedValue& named) {
    const std::string name =
        named.name.empty() ? default_limit_name({.name = {}, .kind = LimitKind::rate}, holder_) : named.name;
    const auto found = find(name);
    if (found == limits_.end() || found->kind != LimitKind::rate) {
      throw UsageError(fmt::format("--burst needs a rate: there is none named \"{}\"; add --rate {}10/s", name,
                                   named.name.empty() ? std::string{} : name + "="));
    }
    if (is_none(named.value)) {
      found->burst.reset();
      return;
    }
    std::uint64_t burst = 0;
    if (const auto status = apikey::parse_burst(named.value, burst); !status.ok()) {
      throw UsageError(fmt::format("--burst \"{}\": {}", named.value, sentence_of(status)));
    }
    found->burst = burst;
  }

  void set_dry_run(const std::string& name, bool is_dry_run) {
    const auto found = find(name);
    if (found == limits_.end()) {
      throw UsageError(
          fmt::format("there is no limit \"{}\" here; {}{}", name, names_text(),
                      holder_ == LimitHolder::key ? ". A plan's limits are changed with `keyloader plan set`" : ""));
    }
    found->is_dry_run = is_dry_run;
  }

  void finish() {
    if (limits_.size() > apikey::kMaxLimits) {
      throw UsageError(fmt::format("{} limits are too many in one place, {} fit: {}", limits_.size(),
                                   apikey::kMaxLimits, names_text()));
    }
    std::sort(limits_.begin(), limits_.end(), [](const Limit& a, const Limit& b) { return a.name < b.name; });
  }

 private:
  Limits::iterator find(const std::string& name) {
    return std::find_if(limits_.begin(), limits_.end(), [&](const Limit& limit) { return limit.name == name; });
  }

  // Both kinds of quota are removed by either option.
  static bool is_same_option(LimitKind a, LimitKind b) {
    const auto is_quota_kind = [](LimitKind kind) {
      return kind == LimitKind::calendar_quota || kind == LimitKind::rolling_quota;
    };
    return a == b || (is_quota_kind(a) && is_quota_kind(b));
  }

  // A quota without a name: the only one there is.
  std::string name_to_remove(LimitKind kind, const NamedValue& named) {
    if (!named.name.empty()) {
      return named.name;
    }
    if (kind == LimitKind::rate || kind == LimitKind::concurrency) {
      return default_limit_name({.name = {}, .kind = kind}, holder_);
    }
    Texts names;
    for (const Limit& limit : limits_) {
      if (limit.kind == kind) {
        names.push_back(limit.name);
      }
    }
    if (names.size() > 1) {
      throw UsageError(fmt::format("{} none: say which, as in `{} {}=none`; there are {}", option_of(kind),
                                   option_of(kind), names.front(), fmt::join(names, ", ")));
    }
    return names.empty() ? std::string{} : names.front();
  }

  std::string names_text() const {
    Texts names;
    std::transform(limits_.begin(), limits_.end(), std::back_inserter(names),
                   [](const Limit& limit) { return limit.name; });
    return names.empty() ? "there are none" : fmt::format("there are {}", fmt::join(names, ", "));
  }

  Limits& limits_;
  LimitHolder holder_;
  Texts set_;
};

struct Words {
  LimitKind kind;
  const Texts& words;
  Limit (*parse)(const std::string& text);
};

}  // namespace

bool LimitOptions::names_nothing() const {
  return rates.empty() && bursts.empty() && quotas.empty() && rolling_quotas.empty() && concurrencies.empty() &&
         dry_run.empty() && enforced.empty();
}

std::uint64_t parse_grant(const std::string& text) { return parse_amount("grant", text, apikey::kMaxQuotaAmount); }

std::uint64_t parse_quota_amount(const std::string& text) {
  return parse_amount("quota", text, apikey::kMaxQuotaAmount);
}

void apply_limits(Limits& limits, const LimitOptions& options, LimitHolder holder) {
  const std::array<Words, 4> all{{{LimitKind::rate, options.rates, parse_rate_limit},
                                  {LimitKind::calendar_quota, options.quotas, parse_calendar_quota},
                                  {LimitKind::rolling_quota, options.rolling_quotas, parse_rolling_quota},
                                  {LimitKind::concurrency, options.concurrencies, parse_concurrency}}};
  LimitEditor editor(limits, holder);
  for (const Words& each : all) {
    for (const std::string& word : each.words) {
      if (const NamedValue named = named_value(word); is_none(named.value)) {
        editor.remove(each.kind, named);
      }
    }
  }
  for (const Words& each : all) {
    for (const std::string& word : each.words) {
      const NamedValue named = named_value(word);
      if (is_none(named.value)) {
        continue;
      }
      Limit limit = each.parse(named.value);
      limit.name = named.name.empty() ? default_limit_name(limit, holder) : named.name;
      editor.set(limit);
    }
  }
  for (const std::string& word : options.bursts) {
    editor.set_burst(named_value(word));
  }
  for (const std::string& name : options.dry_run) {
    editor.set_dry_run(name, true);
  }
  for (const std::string& name : options.enforced) {
    editor.set_dry_run(name, false);
  }
  editor.finish();
}

void add_limit_options(Command& command, LimitOptions& options, LimitHolder holder) {
  const std::string whose = holder == LimitHolder::owner  ? "all keys of the owner together"
                            : holder == LimitHolder::plan ? "each key of the plan"
                                                          : "this key, instead of its plan's limit of that name";
  command.words("--rate", options.rates, "[NAME=]RATE", "For " + whose + ": 100/s, 30/m, 1000/h (again for more)");
  command.words("--burst", options.bursts, "[NAME=]N",
                "Size of that rate's bucket (default: one second's worth, or the rate's number)");
  command.words("--quota", options.quotas, "[NAME=]AMOUNT/WINDOW",
                "1000000/month: by calendar, in UTC; minute, hour, day, week, month, year (again for more)");
  command.words("--rolling-quota", options.rolling_quotas, "[NAME=]AMOUNT/TIME",
                "50000/30d: refilled evenly instead of at once (again for more)");
  command.words("--concurrency", options.concurrencies, "[NAME=]N", "Requests at once (again for more)");
  command.words("--dry-run-limit", options.dry_run, "NAME", "This limit only counts and reports (again for more)");
}

void add_enforce_option(Command& command, LimitOptions& options) {
  command.words("--enforce-limit", options.enforced, "NAME", "This limit refuses again (again for more)");
}

}  // namespace keyloader
