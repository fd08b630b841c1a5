// keyloader approval: changes that wait for a second person. Who asked cannot approve; who approves sees the change
// itself, and has to be allowed to make it.
#include "approval.hpp"

#include <fmt/format.h>

#include "approvers.hpp"
#include "audit.hpp"
#include "change_words.hpp"
#include "delivery.hpp"
#include "registry/fields.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kLeading = 4;  // columns that stay columns on a narrow terminal

struct ApprovalOptions {
  std::string request;
  std::string reason;
  bool shows_all = false;
  DeliveryOptions delivery;
};

std::uint64_t number_of(const ApprovalOptions& options) {
  const std::string& text = options.request;
  constexpr std::size_t most_digits = 18;
  if (text.empty() || text.size() > most_digits || text.find_first_not_of("0123456789") != std::string::npos) {
    throw UsageError(
        fmt::format("\"{}\" is no number of a request; `keyloader approval list` shows them under REQUEST", text));
  }
  return std::stoull(text);
}

Approval require_approval(Registry& registry, std::uint64_t number) {
  auto approval = registry.approval(number);
  if (!approval) {
    throw Failure(fmt::format("there is no request {}; `keyloader approval list --all` shows them all", number));
  }
  return *approval;
}

std::string asker_text(const Approval& approval) {
  return approval.owner.empty() ? actor_text(approval.actor) : approval.owner;
}

// A step as the audit will tell it.
AuditEntry entry_of(const Json& step) {
  AuditEntry entry;
  entry.action = string_of(step.at("kind")) + "." + string_of(step.at("action"));
  entry.object = string_of(step.at("object"));
  entry.before = step.at("before");
  entry.after = step.at("after");
  return entry;
}

Texts lines_of(const Approval& approval) {
  Texts lines;
  for (const Json& step : approval.operations) {
    const AuditEntry entry = entry_of(step);
    const std::string owner = string_of(field_of(entry.after.is_null() ? entry.before : entry.after, "owner"));
    const std::string words = change_words(entry);  // none for what is new and has nothing but its name
    lines.push_back(fmt::format("{} {}{}{}{}", entry.action, entry.object,
                                owner.empty() || owner == entry.object ? "" : " of " + owner, words.empty() ? "" : ": ",
                                words));
  }
  return lines;
}

Json full_json(const Approval& approval) {
  Json json = to_json(approval);
  json["changes"] = Json::array();
  for (Json step : approval.operations) {
    step.erase("digest");  // nobody's business
    json["changes"].push_back(std::move(step));
  }
  return json;
}

std::string decision_text(const Approval& approval, Registry& registry) {
  if (approval.decider.is_null()) {
    return approval.why.empty() ? std::string{"no"} : approval.why;
  }
  return fmt::format("{} at {}", Actors(registry).text(approval.decider), time_text(approval.decided));
}

// When it will end by itself, or was decided.
std::string end_text(const Approval& approval) {
  if (approval.state == "pending") {
    return time_text(approval.ends);
  }
  return approval.decided == 0 ? "-" : time_text(approval.decided);
}

// The first of its steps, and how many more there are.
std::string first_line(const Approval& approval) {
  const Texts lines = lines_of(approval);
  if (lines.empty()) {
    return "-";
  }
  return lines.front() + (lines.size() == 1 ? "" : fmt::format(" (and {} more)", lines.size() - 1));
}

void list(const Session& session, const ApprovalOptions& options) {
  const auto registry = session.open_registry();
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const Approval& approval : registry->approvals()) {
    if (options.shows_all || approval.state == "pending") {
      json.push_back(full_json(approval));
      rows.push_back({std::to_string(approval.number), approval.state, asker_text(approval), end_text(approval),
                      fmt::format("{}", fmt::join(approval.needs, ", ")), first_line(approval)});
    }
  }
  session.report_table({"REQUEST", "STATE", "ASKED BY", "ENDS OR ENDED", "NEEDS A SECOND PERSON", "CHANGE"}, rows, json,
                       options.shows_all ? "no requests" : "no request is waiting", kLeading);
}

void show(const Session& session, const ApprovalOptions& options) {
  const std::uint64_t number = number_of(options);
  const auto registry = session.open_registry();
  const Approval approval = require_approval(*registry, number);
  const Texts lines = lines_of(approval);
  session.report(
      fmt::format(
          "request:  {}\nstate:    {}\nasked by: {} at {}\nends:     {}\nreason:   {}\nneeds:    {}\n"
          "decided:  {}\nchanges:  {}",
          approval.number, approval.state, asker_text(approval), time_text(approval.created), time_text(approval.ends),
          approval.reason, fmt::join(approval.needs, ", "), decision_text(approval, *registry),
          lines.empty() ? "in the audit, if it was approved" : fmt::format("{}", fmt::join(lines, "\n          "))),
      full_json(approval));
}

void approve(const Session& session, const ApprovalOptions& options) {
  check(options.delivery);
  const std::uint64_t number = number_of(options);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  const Approval approval = require_approval(*registry, number);
  const Json json = full_json(approval);
  const Texts lines = lines_of(approval);
  change->approve(number);
  report(session, fmt::format("approved request {} of {}:\n{}", number, asker_text(approval), fmt::join(lines, "\n")),
         json, deliver(session, *registry, *change, options.delivery));
}

void refuse(const Session& session, const ApprovalOptions& options) {
  check_reason(options.reason);
  const std::uint64_t number = number_of(options);
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  if (const Approval approval = require_approval(*registry, number); approval.state == "refused") {
    session.report(fmt::format("request {} is refused already", number), to_json(approval));
    return;
  }
  change->because(options.reason);
  change->refuse(number);
  change->commit();
  session.report(fmt::format("refused request {}; nothing was changed", number),
                 to_json(require_approval(*registry, number)));
}

}  // namespace

std::string request_text(const Session& session, const WaitsForApproval& waits) {
  const auto registry = session.dir().open_registry();
  const std::string few = few_approvers(*registry, registry->policy());
  return fmt::format(
      "it waits for a second person ({0}). Request {1}: another administrator sees it with `keyloader approval show "
      "{1}`, and `keyloader approval approve {1} --key-file FILE` makes it{2}{3}",
      fmt::join(waits.needs(), ", "), waits.request(), few.empty() ? "" : ". Now ", few);
}

Json request_json(const WaitsForApproval& waits) {
  return {{"request", waits.request()}, {"needs", waits.needs()}, {"generation", nullptr}, {"active", false}};
}

void report_request(const Session& session, const WaitsForApproval& waits) {
  if (session.is_json) {
    session.report({}, request_json(waits));
  }
  Session::warn("nothing was changed yet, " + request_text(session, waits));
}

void add_approval_commands(Command& app, Session& session) {
  Command group = app.add_group("approval", "Changes that wait for a second person");
  auto options = std::make_shared<ApprovalOptions>();

  Command all = group.add("list", "What is waiting");
  all.flag("--all", options->shows_all, "Also what was approved or refused, or has ended");
  all.footer(
      "A command whose change needs a second person makes a request instead, and ends with exit code 3. A request "
      "ends\n"
      "after 72 hours, and as soon as anything it touches is changed by somebody else.\n\n"
      "  keyloader approval list");
  all.read([&session, options] { list(session, *options); });

  Command one = group.add("show", "One request: the change itself");
  one.argument("REQUEST", options->request, "Its number");
  one.footer("  keyloader approval show 7");
  one.read([&session, options] { show(session, *options); });

  Command yes = group.add("approve", "Make the change of a request");
  yes.argument("REQUEST", options->request, "Its number");
  yes.tries(options->delivery);
  yes.delivers(options->delivery);
  yes.footer(
      "It takes the key of an administrator, in --key-file, who is not the one that asked and may make the change "
      "too.\n"
      "--dry-run says whether that is so.\n\n"
      "  keyloader approval approve 7 --key-file ~/.apikey");
  yes.run([&session, options] { approve(session, *options); });

  Command no = group.add("refuse", "End a request without its change, also one of your own");
  no.argument("REQUEST", options->request, "Its number");
  no.option("--reason", options->reason, "TEXT", "Kept in the audit");
  no.footer("  keyloader approval refuse 7 --reason 'not before the migration'");
  no.run([&session, options] { refuse(session, *options); });
}

}  // namespace keyloader
