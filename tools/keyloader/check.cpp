// keyloader check: what nginx would answer a key, by the same decision, with every check in a row of its own.
// Opens everything for reading only. Must never print a secret, nor take one as an argument.
#include "check.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "apikey/authenticator.hpp"
#include "apikey/limits.hpp"
#include "check_report.hpp"
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

constexpr std::string_view kNotLookedAt =
    "Not looked at: where the key stands in the request, and nginx's own allow, deny, auth_basic, internal, return, "
    "rewrite.";

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
  // Null where they are of another version.
  [[nodiscard]] const apikey::LimitTables* tables() const { return are_whole_ ? &tables_ : nullptr; }

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

// The file that the nginx decides with: keys.mdb, or an earlier one where it has refused that. Empty: it has none.
std::filesystem::path snapshot_of(const DataDir& directory, const Node& node, const std::filesystem::path& published,
                                  Proposal& at) {
  std::uint64_t active = 0;
  const std::vector<std::size_t> ours = node.rows_of(published);
  for (const StoreView& store : stores_of(node)) {
    if (std::find(ours.begin(), ours.end(), store.row) != ours.end() && store.adopted.has_active()) {
      active = store.adopted.active.generation;
      if (store.adopted.has_veto()) {
        at.doubts_if_allowed.push_back(
            fmt::format("{} also refuses whom generation {} takes away, which is not looked "
                        "at here",
                        node.name(), store.adopted.veto.generation));
      }
    }
  }
  if (active == 0) {
    return {};
  }
  const auto history = apikey::publish::list_history(directory.path());
  if (std::any_of(history.begin(), history.end(),
                  [&](const auto& entry) { return entry.is_in_service && entry.generation == active; })) {
    return published;
  }
  for (const auto& entry : history) {
    if (entry.generation == active) {
      at.remarks.push_back(fmt::format("{} uses generation {}, which is not the published one; that was looked at.",
                                       node.name(), active));
      return entry.path;
    }
  }
  at.doubts.push_back(
      fmt::format("{} uses generation {}, which is not there; keys.mdb is what was looked at", node.name(), active));
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

struct Decided {
  bool is_allowed = false;
  std::string outcome;
  CheckReport report{};
};

void decide_for(const Session& session, const CheckOptions& options, const Url& url, const Node& node, Proposal& at,
                const std::filesystem::path& published, Decided& decided) {
  const LocationView& location = *at.location;
  SnapshotFile file;
  const std::filesystem::path path = snapshot_of(session.dir(), node, published, at);
  if (path.empty()) {
    decided.is_allowed = location.is(apikey::kPolicyAllowsOnError);
    decided.outcome =
        std::string{apikey::outcome_name(decided.is_allowed ? apikey::Outcome::bypass : apikey::Outcome::unavailable)};
    return decided.report.row("snapshot", decided.is_allowed, node.name() + " has none, and can look up no key");
  }
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
  CheckReport& report = decided.report;
  if (!known.has_record) {
    report.row("known", false, fmt::format("generation {} has no such key", file.meta().generation));
  } else {
    const CheckSubject subject{.snapshot = file.snapshot(),
                               .generation = file.meta().generation,
                               .policy = policy.get(),
                               .known = known,
                               .facts = facts,
                               .clocks = clocks,
                               .method = options.method};
    report_key(subject, report);
    if (known.outcome == apikey::Outcome::ok) {
      const TableCopies copies(node);
      if (copies.tables() == nullptr) {
        at.doubts_if_allowed.push_back("the limits of " + node.name() + " are of another version");
      }
      const apikey::Outcome limits = report_limits(subject, copies.tables(), report);
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
    at.remarks.push_back(fmt::format("Not looked at: {}.", left_out));
  }
  if (location.is(apikey::kPolicySatisfyAny)) {
    at.remarks.emplace_back("The location has `satisfy any`: something else than a key may let the request in.");
  }
  if (!location.fail_limits.empty()) {
    at.remarks.emplace_back("Failed attempts of the client's address were not looked at.");
  }
}

struct Candidate {
  const Node* node = nullptr;
  NodePolicies policies;
};

// The running nginx that listen where the URL points to; all that run where none does, or only a path was given.
std::vector<Candidate> candidates_for(const Nodes& nodes, const Url& url) {
  std::vector<Candidate> fitting;
  std::vector<Candidate> others;
  for (const Node* const node : require_nodes_with_our_keys(nodes)) {
    if (!node->is_live()) {
      throw Failure(fmt::format("cannot be judged: {} is not running, and no other nginx of this machine uses {}",
                                node->name(), nodes.snapshot().string()));
    }
    NodePolicies policies = policies_of(*node);
    if (!policies.problem.empty()) {
      throw Failure(policies.problem);
    }
    const bool fits =
        !url.host.empty() && std::any_of(policies.servers.begin(), policies.servers.end(),
                                         [&](const ServerView& server) { return listens_on(server, url.port); });
    (fits ? fitting : others).push_back({node, std::move(policies)});
  }
  return fitting.empty() ? std::move(others) : std::move(fitting);
}

void check_key(Session& session, const CheckOptions& options) {
  if (options.id != "-") {
    static_cast<void>(require_key_id(options.id));
  }
  const Url url = parse_url(options.url);
  const Nodes nodes(session.dir(), session.runtime);
  std::vector<Candidate> candidates = candidates_for(nodes, url);
  const Node& node = *candidates.front().node;
  Proposal at = find_location(candidates.front().policies, url, apikey::method_bit(options.method), options.location);
  if (candidates.size() > 1) {
    Texts names;
    for (const Candidate& each : candidates) {
      names.push_back(each.node->name());
    }
    at.doubts.push_back(fmt::format("{} use these keys; the answer is of the first{}", fmt::join(names, " and "),
                                    url.host.empty() ? ", and the URL with its host and port tells them apart" : ""));
  }
  Decided decided;
  if (at.location->is(apikey::kPolicyOn)) {
    decide_for(session, options, url, node, at, nodes.snapshot(), decided);
  } else {
    decided.is_allowed = true;
    decided.outcome = "off";
    decided.report.row("location", true, "it asks for no key");
  }
  if (decided.is_allowed) {
    at.doubts.insert(at.doubts.end(), at.doubts_if_allowed.begin(), at.doubts_if_allowed.end());
  }
  const bool is_judged = at.doubts.empty();
  const std::string verdict = !is_judged ? "cannot be judged" : decided.is_allowed ? "allowed" : "refused";
  for (const std::string& remark : at.remarks) {
    Session::warn(remark);
  }
  for (const std::string& doubt : at.doubts) {
    Session::warn("It cannot be judged: " + doubt + ".");
  }
  session.report(
      fmt::format("{}\n{} ({}): {} {}, location {} of {}{}", table_text({"CHECK", "", "WHY"}, decided.report.rows),
                  verdict, decided.outcome, options.method, url.path, at.location->name(), at.server->name(),
                  is_judged && decided.is_allowed ? fmt::format("\n{}", kNotLookedAt) : ""),
      {{"allowed", is_judged ? Json(decided.is_allowed) : Json(nullptr)},
       {"outcome", decided.outcome},
       {"nginx", node.name()},
       {"server", at.server->name()},
       {"location", at.location->name()},
       {"is_proposed", options.location.empty()},
       {"checks", decided.report.json},
       {"remarks", at.remarks},
       {"not_looked_at", kNotLookedAt},
       {"doubts", at.doubts}});
  session.exit_code = is_judged && decided.is_allowed ? 0 : 1;
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
                 "As `keyloader locations` or `why` shows it (default: the one with the longest prefix)");
  command.footer(
      "Decides as the running nginx does, with its configuration, its snapshot and its counters, and changes nothing:\n"
      "exit code 0 where the request would be allowed, 1 where it would be refused, or where that cannot be judged.\n"
      "A request counts 1 in limits. Not looked at: where the key stands in the request, and\n"
      "nginx's own allow, deny, auth_basic, internal, return and rewrite.\n\n"
      "  keyloader check key_01K… GET https://api.example.com/orders/1 --from 10.1.2.3\n"
      "  keyloader check - POST /orders/ --location '/orders/' < key.txt");
  command.read([&session, options] { check_key(session, *options); });
}

}  // namespace keyloader
