// keyloader quota: what an operator does to a quota that a customer has used up: grant more, or begin anew. And what
// stands for it. How much was used only nginx knows; `quota show` asks it.
#include <fmt/format.h>

#include <algorithm>

#include "apikey/quota_table.hpp"
#include "delivery.hpp"
#include "hint.hpp"
#include "key.hpp"
#include "limit_rules.hpp"
#include "limits.hpp"
#include "names.hpp"
#include "quota_use.hpp"
#include "table.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kMaxReason = 512;

struct QuotaOptions {
  std::string id;
  std::string owner;
  std::string quota;
  std::string amount;
  std::string until;
  std::string reason;
  DeliveryOptions delivery;
};

// A key, standing for its family, or an owner; and the quotas that are its own to adjust.
struct Subject {
  std::optional<Key> key;
  Owner owner;
  std::vector<EffectiveLimit> quotas;
  Adjustments adjustments;

  [[nodiscard]] std::string text() const { return key ? text_of(key->id) : "owner " + owner.name; }
};

bool is_of_owner(const EffectiveLimit& limit) { return limit.from.compare(0, 6, "owner:") == 0; }

Subject find_subject(Registry& registry, const QuotaOptions& options) {
  if (options.id.empty() == options.owner.empty()) {
    throw UsageError("name either the id of a key or --owner");
  }
  Subject subject;
  std::vector<EffectiveLimit> limits;
  if (!options.id.empty()) {
    subject.key = require_key(registry, options.id);
    subject.adjustments = registry.adjustments(subject.key->family);
    limits = effective_limits(registry, *subject.key);
  } else {
    subject.owner = require_owner(registry, options.owner);
    subject.adjustments = registry.adjustments(subject.owner);
    limits = effective_limits(Key{}, Plan{}, subject.owner);
  }
  const bool is_owner = !subject.key;
  std::copy_if(limits.begin(), limits.end(), std::back_inserter(subject.quotas),
               [&](const EffectiveLimit& each) { return is_quota(each.limit) && is_of_owner(each) == is_owner; });
  return subject;
}

std::string quotas_text(const Subject& subject) {
  std::string text;
  for (const EffectiveLimit& quota : subject.quotas) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", quota.limit.name, limit_text(quota.limit));
  }
  if (!text.empty()) {
    return "it has " + text;
  }
  return subject.key
             ? fmt::format("give it one with `keyloader key set {} --quota 1000000/month`", text_of(subject.key->id))
             : fmt::format("give it one with `keyloader owner set {} --quota 1000000/month`",
                           shell_word(subject.owner.name));
}

const EffectiveLimit& require_quota(const Subject& subject, const std::string& name) {
  if (name.empty() && subject.quotas.size() == 1) {
    return subject.quotas.front();
  }
  if (name.empty() && !subject.quotas.empty()) {
    throw UsageError(fmt::format("say which quota of {} with --name; {}", subject.text(), quotas_text(subject)));
  }
  for (const EffectiveLimit& quota : subject.quotas) {
    if (quota.limit.name == name) {
      return quota;
    }
  }
  const std::string hint = subject.key
                               ? fmt::format(". Those of its owner are adjusted with --owner {}", subject.key->owner)
                               : std::string{};
  throw Failure(fmt::format("{} has no quota{}; {}{}", subject.text(),
                            name.empty() ? std::string{} : fmt::format(" \"{}\"", name), quotas_text(subject), hint));
}

Json quota_json(const Subject& subject, const EffectiveLimit& quota, const Adjustment& adjustment, Seconds now) {
  Json json = to_json(quota);
  json.update(to_json(adjustment));
  json.erase("quota");  // it is the `name`
  json["amount_now"] = quota.limit.amount + adjustment.granted;
  json["owner"] = subject.key ? subject.key->owner : subject.owner.name;
  if (subject.key) {
    json["key"] = text_of(subject.key->id);
    json["family"] = text_of(subject.key->family);
  }
  const auto window = window_of(quota.limit, adjustment, now);
  json["window_begin"] = window ? time_json(window->begin.value) : Json(nullptr);
  json["window_end"] = window ? time_json(window->end.value) : Json(nullptr);
  return json;
}

Outcome adjust(const Session& session, Registry& registry, Change& change, const Subject& subject,
               const Adjustment& adjustment, std::string_view action, const QuotaOptions& options) {
  if (!options.reason.empty()) {
    check_text("reason", options.reason, kMaxReason);
  }
  change.because(options.reason);
  if (subject.key) {
    change.adjust(*subject.key, adjustment, action, options.reason);
  } else {
    change.adjust(subject.owner, adjustment, action, options.reason);
  }
  return deliver(session, registry, change, options.delivery);
}

void reset(const Session& session, const QuotaOptions& options) {
  check(options.delivery);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  const Subject subject = find_subject(*registry, options);
  const EffectiveLimit quota = require_quota(subject, options.quota);
  const Seconds now = wall_clock();
  Adjustment adjustment = adjustment_of(subject.adjustments, quota.limit.name, now);
  adjustment.last_reset = now;
  const Outcome outcome = adjust(session, *registry, *change, subject, adjustment, "reset", options);
  report(session,
         fmt::format("reset {} of {}: what was used before {} is forgotten", quota.limit.name, subject.text(),
                     time_text(now)),
         quota_json(subject, quota, adjustment, now), outcome);
}

// When a grant ends that does not say it: with the grant that stands, or with the window.
Seconds end_of_grant(const Limit& quota, const Adjustment& adjustment, const std::string& until, Seconds now) {
  if (!until.empty()) {
    const Seconds end = parse_time(until, now);
    if (end <= now || end > static_cast<Seconds>(apikey::kMaxAdjustmentTime)) {
      throw UsageError(fmt::format("\"{}\" is no end of a grant: it has to be in the future, and before {}", until,
                                   time_text(apikey::kMaxAdjustmentTime)));
    }
    return end;
  }
  if (adjustment.granted != 0) {
    return adjustment.granted_until;
  }
  const auto window = window_of(quota, adjustment, now);
  return window ? window->end.value : now + static_cast<Seconds>(quota.period_ns / apikey::kNsPerSecond);
}

void grant(const Session& session, const QuotaOptions& options) {
  const std::uint64_t amount = parse_grant(options.amount);
  check(options.delivery);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  const Subject subject = find_subject(*registry, options);
  const EffectiveLimit quota = require_quota(subject, options.quota);
  const Seconds now = wall_clock();
  Adjustment adjustment = adjustment_of(subject.adjustments, quota.limit.name, now);
  if (amount > apikey::kMaxQuotaAmount - adjustment.granted) {
    throw Failure(fmt::format("{} of {} has been granted {} already; all grants together are at most {}",
                              quota.limit.name, subject.text(), adjustment.granted, apikey::kMaxQuotaAmount));
  }
  adjustment.granted_until = end_of_grant(quota.limit, adjustment, options.until, now);
  adjustment.granted += amount;
  const Outcome outcome = adjust(session, *registry, *change, subject, adjustment, "grant", options);
  report(session,
         fmt::format("{} of {} is {} and {} granted until {}", quota.limit.name, subject.text(),
                     limit_text(quota.limit), adjustment.granted, time_text(adjustment.granted_until)),
         quota_json(subject, quota, adjustment, now), outcome);
}

std::span<const std::uint8_t> id_of(const Subject& subject) {
  return subject.key ? std::span<const std::uint8_t>{subject.key->family.bytes} : subject.owner.id;
}

std::size_t quotas_of_owner(Registry& registry, const Key& key) {
  const auto limits = effective_limits(registry, key);
  return static_cast<std::size_t>(std::count_if(limits.begin(), limits.end(), [](const EffectiveLimit& each) {
    return is_quota(each.limit) && is_of_owner(each);
  }));
}

void show(const Session& session, const QuotaOptions& options) {
  const auto registry = session.open_registry();
  const Subject subject = find_subject(*registry, options);
  const Seconds now = wall_clock();
  const QuotaMeter meter(session);
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const EffectiveLimit& quota : subject.quotas) {
    const Adjustment adjustment = adjustment_of(subject.adjustments, quota.limit.name, now);
    const auto use = meter.read(quota.limit, adjustment, id_of(subject));
    json.push_back(quota_json(subject, quota, adjustment, now));
    json.back().update(to_json(use));
    const auto window = window_of(quota.limit, adjustment, now);
    const Seconds resets = use ? use->resets : window ? window->end.value : 0;
    rows.push_back({quota.limit.name, limit_text(quota.limit), use ? std::to_string(use->used) : "-",
                    use ? std::to_string(use->left) : "-", use ? fmt::format("{} %", use->percent()) : "-",
                    resets == 0 ? "-" : time_text(resets), source_text(quota),
                    adjustment.granted == 0
                        ? "-"
                        : fmt::format("{} until {}", adjustment.granted, time_text(adjustment.granted_until)),
                    adjustment.last_reset == 0 ? "-" : time_text(adjustment.last_reset)});
  }
  const std::size_t of_owner = subject.key ? quotas_of_owner(*registry, *subject.key) : 0;
  const std::string also =
      of_owner == 0 ? std::string{}
                    : fmt::format("its owner has {}: `keyloader quota show --owner {}`",
                                  of_owner == 1 ? "a quota for all keys together" : "quotas for all keys together",
                                  shell_word(subject.key->owner));
  const std::string none = fmt::format("{} has no quota{}; {}", subject.text(), also.empty() ? "" : " of its own",
                                       also.empty() ? quotas_text(subject) : also);
  session.report_table({"QUOTA", "AMOUNT", "USED", "LEFT", "PART", "RESETS", "FROM", "GRANTED", "LAST RESET"}, rows,
                       json, none);
  if (rows.empty() || session.is_json) {
    return;
  }
  if (!also.empty()) {
    print_note(also);
  }
  if (const std::string remark = meter.remark(); !remark.empty()) {
    print_out(shown(remark) + "\n");
  }
}

Command add_quota_command(Command& group, const std::string& name, const std::string& help, QuotaOptions& options) {
  Command command = group.add(name, help);
  command.optional_argument("ID", options.id, "A key: key_…; keys that it was rotated to or from follow");
  command.option("--owner", options.owner, "OWNER", "The quota that all keys of this owner share");
  return command;
}

void add_change_options(Command& command, QuotaOptions& options) {
  command.option("--name", options.quota, "QUOTA", "Which, if there are several: month, tokens.month");
  command.option("--reason", options.reason, "TEXT", "Kept in the audit");
  command.tries(options.delivery);
  command.delivers(options.delivery);
}

}  // namespace

void add_quota_commands(Command& app, Session& session) {
  Command group = app.add_group("quota", "Grants on top of quotas, and resets");
  auto options = std::make_shared<QuotaOptions>();

  Command more = add_quota_command(group, "grant", "Allow more than a quota says, for a while", *options);
  more.required_option("--amount", options->amount, "N", "How much more");
  more.option("--until", options->until, "WHEN",
              "24h, 2027-01-31 (default: until the window ends; of a rolling quota, for its time)");
  add_change_options(more, *options);
  more.footer(
      "A second grant adds to the first while that stands, and both then end together.\n\n"
      "  keyloader quota grant key_… --amount 50000 --reason 'ticket 4711'\n"
      "  keyloader quota grant --owner acme --name owner.month --amount 1000000 --until 2027-01-31");
  more.run([&session, options] { grant(session, *options); });

  Command anew = add_quota_command(group, "reset", "Forget what was used of a quota", *options);
  add_change_options(anew, *options);
  anew.footer(
      "A calendar window still ends when it would have; grants stay.\n\n"
      "  keyloader quota reset key_… --name day --reason 'a loop of ours used it up'");
  anew.run([&session, options] { reset(session, *options); });

  Command all = add_quota_command(group, "show", "The quotas of a key or owner: used, left, granted, reset", *options);
  all.footer(
      "USED and LEFT are what nginx counts at this moment; where several share keys.mdb, each allows the whole "
      "amount,\n"
      "and the numbers are their sum.\n\n"
      "  keyloader quota show key_…\n  keyloader quota show --owner acme --json");
  all.read([&session, options] { show(session, *options); });
}

}  // namespace keyloader
