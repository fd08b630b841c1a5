// keyloader check: what nginx would answer a key, by the same decision, with every check in a row of its own.
// Opens everything for reading only. Must never print a secret, nor take one as an argument.
#include "check.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "apikey/authenticator.hpp"
#include "apikey/limits.hpp"
#include "key.hpp"
#include "limit_text.hpp"
#include "node_tables.hpp"
#include "node_view.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_store.hpp"
#include "secret.hpp"
#include "session.hpp"
#include "table.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;

struct CheckOptions {
  std::string id;
  std::string method;
  std::string url;
  std::string from;
  std::string origin;
  std::string location;
};

apikey::Clocks clocks_now() {
  timespec wall{};
  static_cast<void>(clock_gettime(CLOCK_REALTIME, &wall));
  return {.wall = {wall.tv_sec},
          .mono = monotonic_now(),
          .wall_us = {static_cast<std::uint64_t>(wall.tv_sec) * 1'000'000U +
                      static_cast<std::uint64_t>(wall.tv_nsec) / 1000U}};
}

// The tables of limits of one nginx.
class TableCopies {
 public:
  explicit TableCopies(const Node& node) {
    constexpr auto bucket_version = static_cast<std::uint32_t>(apikey::BucketTable::kLayout);
    constexpr auto flight_version = static_cast<std::uint32_t>(apikey::FlightTable::kLayout);
    constexpr auto quota_version = static_cast<std::uint32_t>(apikey::QuotaTable::kLayout);
    const auto clock = []() noexcept { return monotonic_now(); };
    using apikey::NodeRegion;
    are_whole_ =
        apikey::BucketTable::attach(copy(node, NodeRegion::buckets, bucket_version), clock, buckets_).ok() &&
        apikey::BucketTable::attach(copy(node, NodeRegion::client_buckets, bucket_version), clock, client_buckets_)
            .ok() &&
        apikey::QuotaTable::attach(copy(node, NodeRegion::quotas, quota_version), quotas_).ok() &&
        apikey::FlightTable::attach(copy(node, NodeRegion::flights, flight_version), flights_).ok() &&
        apikey::FlightTable::attach(copy(node, NodeRegion::client_flights, flight_version), client_flights_).ok();
    tables_.buckets = &buckets_;
    tables_.client_buckets = &client_buckets_;
    tables_.quotas = &quotas_;
    tables_.flights = &flights_;
    tables_.client_flights = &client_flights_;
  }
  TableCopies(const TableCopies&) = delete;
  TableCopies& operator=(const TableCopies&) = delete;
  [[nodiscard]] bool are_whole() const { return are_whole_; }
  [[nodiscard]] const apikey::LimitTables& tables() const { return tables_; }

 private:
  std::span<std::byte> copy(const Node& node, apikey::NodeRegion kind, std::uint32_t version) {
    return copies_.emplace_back(node.memory().region(kind, version)).bytes();
  }
  std::vector<TableCopy> copies_;
  apikey::BucketTable buckets_;
  apikey::BucketTable client_buckets_;
  apikey::QuotaTable quotas_;
  apikey::FlightTable flights_;
  apikey::FlightTable client_flights_;
  apikey::LimitTables tables_;
  bool are_whole_ = false;
};

// The policy of a location, as decide() wants it. LIFETIME: the view's.
class Policy {
 public:
  explicit Policy(const LocationView& view) : environments_(view.environments.begin(), view.environments.end()) {
    for (const ScopeLineView& line : view.scope_lines) {
      scopes_.emplace_back(line.scopes.begin(), line.scopes.end());
    }
    for (std::size_t i = 0; i < scopes_.size(); ++i) {
      lines_.push_back({.methods = view.scope_lines[i].methods, .scopes = scopes_[i]});
    }
    for (const LocationLimitView& each : view.limits) {
      if (each.by == apikey::LimitBy::value || limits_.size() == apikey::kMaxLocationLimits) {
        left_out_.push_back(fmt::format("{} by a variable of the request", limit_text(each.limit)));
        continue;
      }
      apikey::PolicyLimit limit;
      limit.by = each.by;
      limit.limit = {.kind = each.limit.kind,
                     .rate = {.amount = each.limit.amount, .period_ns = each.limit.period_ns},
                     .burst = each.limit.burst.value_or(each.limit.amount),
                     .name = each.limit.name,
                     .place = each.place};
      limits_.push_back(limit);
    }
    required_limits_.assign(view.required_limits.begin(), view.required_limits.end());
    policy_.is_optional = view.is(apikey::kPolicyOptional);
    policy_.allows_on_error = view.is(apikey::kPolicyAllowsOnError);
    policy_.allows_any_scope = view.is(apikey::kPolicyAnyScope);
    policy_.allows_any_environment = view.is(apikey::kPolicyAnyEnvironment);
    const bool tries_limits = view.is(apikey::kPolicyDryRunLimits);
    const bool tries_scopes = view.is(apikey::kPolicyDryRunScopes);
    policy_.dry_run = tries_limits && tries_scopes ? apikey::DryRun::on
                      : tries_limits               ? apikey::DryRun::limits
                      : tries_scopes               ? apikey::DryRun::scopes
                                                   : apikey::DryRun::off;
    policy_.environments = environments_;
    policy_.scope_lines = lines_;
    policy_.limits = limits_;
    policy_.required_limits = required_limits_;
  }
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;
  [[nodiscard]] const apikey::LocationPolicy& get() const { return policy_; }
  [[nodiscard]] const Texts& left_out() const { return left_out_; }

 private:
  std::vector<std::string_view> environments_;
  std::vector<std::vector<std::string_view>> scopes_;
  std::vector<apikey::ScopeLine> lines_;
  std::vector<apikey::PolicyLimit> limits_;
  std::vector<std::string_view> required_limits_;
  Texts left_out_;
  apikey::LocationPolicy policy_;
};

// One row for each check.
struct Report {
  std::vector<Texts> rows;
  Json json = Json::array();

  void row(const char* name, bool is_ok, const std::string& why) {
    rows.push_back({name, is_ok ? "ok" : "NO", why});
    json.push_back({{"check", name}, {"ok", is_ok}, {"why", why}});
  }
};

apikey::RequestFacts facts_of(const CheckOptions& options, const Url& url) {
  apikey::RequestFacts facts;
  facts.method = apikey::method_bit(options.method);
  facts.is_tls = url.is_tls;
  facts.host = url.host;
  facts.origin = options.origin;
  facts.has_address = !options.from.empty();
  std::array<std::uint8_t, 16> bytes{};
  if (inet_pton(AF_INET, options.from.c_str(), bytes.data()) == 1) {
    facts.address = apikey::make_address(std::span(bytes).first(4));
  } else if (inet_pton(AF_INET6, options.from.c_str(), bytes.data()) == 1) {
    facts.address = apikey::make_address(bytes);
  } else if (facts.has_address) {
    throw UsageError(
        fmt::format("--from: \"{}\" is no address, write one such as 10.1.2.3 or 2001:db8::1", options.from));
  }
  return facts;
}

// The file that the nginx decides with: keys.mdb, or an earlier one where it has refused that.
std::filesystem::path snapshot_of(const DataDir& directory, const Node& node, const std::filesystem::path& published,
                                  Texts& remarks) {
  std::uint64_t active = 0;
  const std::vector<std::size_t> ours = node.rows_of(published);
  for (const StoreView& store : stores_of(node)) {
    if (std::find(ours.begin(), ours.end(), store.row) != ours.end() && store.adopted.has_active()) {
      active = store.adopted.active.generation;
      if (store.adopted.has_veto()) {
        remarks.push_back(fmt::format("{} also refuses whom generation {} takes away; that is not looked at here.",
                                      node.name(), store.adopted.veto.generation));
      }
    }
  }
  if (active == 0) {
    remarks.push_back(fmt::format("{} has no snapshot: it answers 503; keys.mdb is what was looked at.", node.name()));
    return published;
  }
  const auto history = apikey::publish::list_history(directory.path());
  if (std::any_of(history.begin(), history.end(),
                  [&](const auto& entry) { return entry.is_in_service && entry.generation == active; })) {
    return published;
  }
  for (const auto& entry : history) {
    if (entry.generation == active) {
      remarks.push_back(fmt::format("{} uses generation {}, which is not the published one; that was looked at.",
                                    node.name(), active));
      return entry.path;
    }
  }
  remarks.push_back(
      fmt::format("{} uses generation {}, which is not there; keys.mdb is what was looked at.", node.name(), active));
  return published;
}

// The key of that id. RETURNS: false where the snapshot has none.
bool find_by_id(const SnapshotFile& file, const apikey::KeyId& id, apikey::Credential& credential) {
  bool is_found = false;
  check(file.for_each_key([&](const apikey::Digest& digest, const apikey::Record& record) {
    is_found = record.id == id;
    if (is_found) {
      credential.digests.fill(digest);
    }
    return !is_found;
  }),
        "keys.mdb");
  return is_found;
}

void digest_secret(const DataDir& directory, const apikey::Meta& meta, apikey::Credential& credential) {
  const auto registry = directory.open_registry();
  DigestMethods methods(directory, *registry);
  const SecretText secret = read_secret_from_stdin();
  for (std::size_t i = 0; i < meta.digest_count && i < credential.digests.size(); ++i) {
    const std::string name{meta.digests.at(i)};
    if (!methods.knows(name)) {
      throw Failure(fmt::format("the snapshot has keys under {}, which this registry does not know", name));
    }
    credential.digests.at(i) = methods.digest(name, secret.view());
  }
}

std::string string_of(const apikey::Snapshot& snapshot, std::uint32_t number) {
  std::string_view text;
  return snapshot.string(number, text) ? std::string{text} : std::string{"(damaged)"};
}

// The entries of these kinds alone, as they stand in the list.
std::vector<std::byte> entries_of(std::span<const std::byte> list, std::initializer_list<std::uint8_t> kinds) {
  std::vector<std::byte> chosen;
  apikey::Binding binding;
  for (std::span<const std::byte> rest = list; !rest.empty();) {
    const std::span<const std::byte> before = rest;
    if (!apikey::next_binding(rest, binding)) {
      break;
    }
    if (std::find(kinds.begin(), kinds.end(), binding.kind) != kinds.end()) {
      const auto entry = before.first(before.size() - rest.size());
      chosen.insert(chosen.end(), entry.begin(), entry.end());
    }
  }
  return chosen;
}

void report_state(const apikey::Snapshot& snapshot, const apikey::Recognition& known, apikey::UnixSec now,
                  Report& report) {
  const apikey::Record& record = known.record;
  const auto is_over = [&](apikey::UnixSec until) { return until.value != 0 && until.value <= now.value; };
  const bool is_revoked = (record.flags & apikey::kFlagRevoked) != 0;
  const bool is_suspended = (record.flags & apikey::kFlagSuspended) != 0 && !is_over(record.suspended_until);
  apikey::OwnerRow owner;
  const bool has_owner = snapshot.owner(record.owner, owner);
  const bool is_owner_suspended = has_owner && owner.is_suspended && !is_over(owner.suspended_until);
  report.row("state", !is_revoked && !is_suspended && !is_owner_suspended,
             is_revoked           ? "the key is revoked"
             : is_suspended       ? "the key is suspended"
             : is_owner_suspended ? "its owner is suspended"
                                  : "neither the key nor its owner is suspended, the key is not revoked");
  const bool has_begun = record.not_before.value <= now.value;
  const bool has_ended = record.expires.value != 0 && record.expires.value <= now.value;
  report.row("time", has_begun && !has_ended,
             !has_begun ? "good from " + time_text(record.not_before.value)
             : record.expires.value == 0
                 ? "never expires"
                 : fmt::format("{} {}", has_ended ? "expired" : "expires", time_text(record.expires.value)));
}

void report_conditions(const apikey::Snapshot& snapshot, const apikey::LocationPolicy& policy,
                       const apikey::Record& record, const apikey::RequestFacts& facts, Report& report) {
  const std::string env = string_of(snapshot, record.env);
  const bool is_env_ok = policy.allows_any_environment ||
                         std::find(policy.environments.begin(), policy.environments.end(), std::string_view{env}) !=
                             policy.environments.end();
  report.row("environment", is_env_ok,
             policy.allows_any_environment
                 ? fmt::format("{}; the location takes any", env)
                 : fmt::format("{}; the location takes {}", env, fmt::join(policy.environments, ", ")));
  std::span<const std::byte> list;
  static_cast<void>(snapshot.bytes(record.bindings, list));
  struct Condition {
    const char* name;
    std::initializer_list<std::uint8_t> kinds;
    const char* missing;
  };
  const Condition conditions[] = {
      {"address", {1, 2}, facts.has_address ? "not in the key's networks" : "the key has networks; say --from ADDRESS"},
      {"origin", {3}, facts.origin.empty() ? "the key has origins; say --origin" : "not one of the key's origins"},
      {"method", {4}, "not one of the key's methods"},
      {"host",
       {5},
       facts.host.empty() ? "the key has hosts; write the URL with its host" : "not one of the key's hosts"}};
  for (const Condition& condition : conditions) {
    const std::vector<std::byte> chosen = entries_of(list, condition.kinds);
    const bool is_ok = apikey::check_bindings(chosen, facts) == apikey::Outcome::ok;
    report.row(condition.name, is_ok, chosen.empty() ? "any" : is_ok ? "one that the key has" : condition.missing);
  }
  const bool needs_tls = (record.flags & apikey::kFlagRequireTls) != 0;
  report.row("tls", !needs_tls || facts.is_tls,
             !needs_tls     ? "not needed"
             : facts.is_tls ? "needed, and so it is"
                            : "the key is for https only");
}

void report_scopes(const apikey::Snapshot& snapshot, const apikey::LocationPolicy& policy, const apikey::Record& record,
                   const CheckOptions& options, const apikey::RequestFacts& facts, Report& report) {
  if (policy.allows_any_scope || policy.scope_lines.empty()) {
    return report.row("scope", true, "the location asks for none");
  }
  apikey::ScopeSet held;
  static_cast<void>(snapshot.scopes(record.scopes, held));
  std::string has;
  for (auto it = held.begin(); it != held.end(); ++it) {
    has += fmt::format("{}{}", has.empty() ? "" : " ", *it);
  }
  bool applies_any = false;
  for (const apikey::ScopeLine& line : policy.scope_lines) {
    const bool is_for_all = line.methods == ~apikey::MethodSet{0};
    if (!is_for_all && (line.methods & facts.method) == 0) {
      continue;
    }
    applies_any = true;
    const bool is_granted =
        std::any_of(line.scopes.begin(), line.scopes.end(), [&](std::string_view scope) { return held.grants(scope); });
    report.row("scope", is_granted,
               fmt::format("needs {}; the key has {}", fmt::join(line.scopes, " or "), has.empty() ? "none" : has));
  }
  if (!applies_any) {
    report.row("scope", false, fmt::format("no API key may use {} here: no apikey_scope names it", options.method));
  }
}

// RETURNS: what the limits alone would say.
apikey::Outcome report_limits(const apikey::LocationPolicy& policy, const SnapshotFile& file,
                              const apikey::Recognition& known, const apikey::RequestFacts& facts,
                              const apikey::Clocks& clocks, const TableCopies& copies, Report& report) {
  if (!copies.are_whole()) {
    report.row("limits", true, "not known: the tables of this nginx are of another version");
    return apikey::Outcome::ok;
  }
  apikey::Charge charge;
  charge.tables = &copies.tables();
  std::array<apikey::LimitUse, apikey::kMaxUses> uses;
  std::size_t count = 0;
  if (!apikey::gather_limits(policy, &file.snapshot(), known, facts, clocks, charge, uses, count)) {
    report.row("limits", false, "what limits this key has is damaged");
    return apikey::Outcome::unavailable;
  }
  for (const apikey::LimitUse& use : std::span(uses).first(count)) {
    const apikey::LimitLevel level = apikey::look_at_limit(copies.tables(), use, clocks);
    const bool has_room = level.status == apikey::LimitLevel::Status::admitted && level.remaining >= use.cost;
    const bool is_ok = use.is_dry_run || has_room;
    const std::uint64_t seconds = (level.reset_ns + apikey::kNsPerSecond - 1) / apikey::kNsPerSecond;
    report.row("limit", is_ok,
               fmt::format("{}: {} of {} left{}{}", std::string_view{use.name}, level.remaining, use.size,
                           seconds == 0 ? "" : fmt::format(", all again in {} s", seconds),
                           use.is_dry_run ? " (dry run)" : ""));
  }
  for (const std::string_view name : policy.required_limits) {
    const bool has = std::any_of(uses.begin(), uses.begin() + static_cast<std::ptrdiff_t>(count),
                                 [&](const apikey::LimitUse& use) { return std::string_view{use.name} == name; });
    report.row("limit", has, fmt::format("{}: the location wants every key to have one of this name", name));
    if (!has) {
      return apikey::Outcome::rate_limited;
    }
  }
  if (count == 0) {
    report.row("limit", true, "none");
  }
  return apikey::look_at_limits(copies.tables(), std::span(uses).first(count), clocks).outcome;
}

struct Decided {
  bool is_allowed = false;
  std::string outcome;
  Texts remarks{};
  Report report{};
};

void decide_for(const Session& session, const CheckOptions& options, const Url& url, const Node& node,
                const LocationView& location, const std::filesystem::path& published, Decided& decided) {
  SnapshotFile file;
  const std::filesystem::path path = snapshot_of(session.dir(), node, published, decided.remarks);
  check(file.open(path), path.string());
  apikey::Credential credential;
  credential.found = apikey::Found::key;
  if (options.id == "-") {
    digest_secret(session.dir(), file.meta(), credential);
  } else if (!find_by_id(file, require_key_id(options.id), credential)) {
    credential.digests.fill({});
  }
  std::array<std::uint8_t, apikey::kMaxConfiguredMethods> methods{};
  for (std::size_t i = 0; i < methods.size(); ++i) {
    methods.at(i) = static_cast<std::uint8_t>(i);
  }
  const apikey::StoreView store{
      .snapshot = &file.snapshot(),
      .methods = std::span(methods).first(std::min<std::size_t>(file.meta().digest_count, methods.size()))};
  const Policy policy(location);
  const apikey::RequestFacts facts = facts_of(options, url);
  const apikey::Clocks clocks = clocks_now();
  apikey::Recognition known;
  const apikey::Verdict verdict = apikey::decide(policy.get(), credential, store, facts, clocks, known, nullptr);
  apikey::Outcome outcome = verdict.outcome;
  bool is_dry_run = verdict.is_dry_run;
  Report& report = decided.report;
  if (!known.has_record) {
    report.row("known", false, fmt::format("generation {} has no such key", file.meta().generation));
  } else {
    apikey::OwnerRow owner;
    const bool has_owner = file.snapshot().owner(known.record.owner, owner);
    report.row("known", true,
               fmt::format("{} of {}, in generation {}", text_of(known.record.id),
                           has_owner ? string_of(file.snapshot(), owner.name) : "(damaged)", file.meta().generation));
    report_state(file.snapshot(), known, clocks.wall, report);
    report_conditions(file.snapshot(), policy.get(), known.record, facts, report);
    report_scopes(file.snapshot(), policy.get(), known.record, options, facts, report);
    if (known.outcome == apikey::Outcome::ok) {
      const TableCopies copies(node);
      const apikey::Outcome limits = report_limits(policy.get(), file, known, facts, clocks, copies, report);
      const bool counts = policy.get().dry_run == apikey::DryRun::off || policy.get().dry_run == apikey::DryRun::scopes;
      if (counts && apikey::passes(verdict) && limits != apikey::Outcome::ok) {
        outcome = limits;
        is_dry_run = false;
      }
    }
  }
  decided.is_allowed = is_dry_run || apikey::lets_pass(outcome);
  decided.outcome = std::string{is_dry_run ? apikey::dry_run_name(outcome) : apikey::outcome_name(outcome)};
  for (const std::string& left_out : policy.left_out()) {
    decided.remarks.push_back(fmt::format("Not looked at: {}.", left_out));
  }
  if (location.is(apikey::kPolicySatisfyAny)) {
    decided.remarks.emplace_back("The location has `satisfy any`: something else than a key may let the request in.");
  }
  if (!location.fail_limits.empty()) {
    decided.remarks.emplace_back("Failed attempts of the client's address were not looked at.");
  }
}

void check_key(Session& session, const CheckOptions& options) {
  if (options.id != "-") {
    static_cast<void>(require_key_id(options.id));
  }
  const Url url = parse_url(options.url);
  const Nodes nodes(session.dir(), session.runtime);
  const Node& node = *require_nodes_with_our_keys(nodes).front();
  const NodePolicies policies = policies_of(node);
  if (!policies.problem.empty()) {
    throw Failure(policies.problem);
  }
  const Proposal at = find_location(policies, url, apikey::method_bit(options.method), options.location);
  Decided decided;
  decided.remarks = at.remarks;
  if (at.location->is(apikey::kPolicyOn)) {
    decide_for(session, options, url, node, *at.location, nodes.snapshot(), decided);
  } else {
    decided.is_allowed = true;
    decided.outcome = "off";
    decided.report.row("location", true, "it asks for no key");
  }
  const std::string place = fmt::format("{} of {}", at.location->name(), at.server->name());
  const std::string verdict =
      decided.is_allowed
          ? fmt::format("allowed ({}): {} {}, location {}", decided.outcome, options.method, url.path, place)
          : fmt::format("refused ({}): {} {}, location {}", decided.outcome, options.method, url.path, place);
  for (const std::string& remark : decided.remarks) {
    Session::warn(remark);
  }
  session.report(fmt::format("{}\n{}", table_text({"CHECK", "", "WHY"}, decided.report.rows), verdict),
                 {{"allowed", decided.is_allowed},
                  {"outcome", decided.outcome},
                  {"nginx", node.name()},
                  {"server", at.server->name()},
                  {"location", at.location->name()},
                  {"is_proposed", options.location.empty()},
                  {"checks", decided.report.json},
                  {"remarks", decided.remarks}});
  session.exit_code = decided.is_allowed ? 0 : 1;
}

}  // namespace

void add_check_command(Command& app, Session& session) {
  Command command = app.add("check", "What nginx would answer a key, check by check");
  auto options = std::make_shared<CheckOptions>();
  command.argument("ID", options->id, "Id of the key; - reads the key itself from standard input");
  command.argument("METHOD", options->method, "GET, POST, …");
  command.argument("URL", options->url, "https://api.example.com/orders/1, or the path alone");
  command.option("--from", options->from, "ADDRESS", "The client's address");
  command.option("--origin", options->origin, "ORIGIN", "What the client would send as Origin");
  command.option("--location", options->location, "LOCATION",
                 "As `keyloader locations` shows it (default: the one with the longest prefix)");
  command.footer(
      "Decides as the running nginx does, with its configuration, its snapshot and its counters, and changes nothing:\n"
      "exit code 0 where the request would be allowed, 1 where it would be refused. A request counts 1 in limits.\n\n"
      "  keyloader check key_01K… GET https://api.example.com/orders/1 --from 10.1.2.3\n"
      "  keyloader check - POST /orders/ --location '/orders/' < key.txt");
  command.read([&session, options] { check_key(session, *options); });
}

}  // namespace keyloader
