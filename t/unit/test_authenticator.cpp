// Tests of authenticator.cpp: every row of the decision table and its place before the others, scope lines with
// methods, limits by family and by owner, and one charge per client request. The snapshots are real ones, built,
// sealed, verified.
#include "apikey/authenticator.hpp"

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "apikey/binding.hpp"
#include "snapshot_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

using publish::Limit;
using publish::Owner;

constexpr std::int64_t kNow = 1'800'000'000;
constexpr std::uint64_t kMono = 9'000'000'000'000;
constexpr SipKey kSeed = {1, 2};

constexpr std::array<std::string_view, 1> kLive = {"live"};
constexpr std::array<std::string_view, 2> kReadOrAdmin = {"orders:read", "orders:admin"};
constexpr std::array<std::string_view, 1> kWrite = {"orders:write"};
constexpr std::array<std::string_view, 1> kRefunds = {"refunds:read:own"};

Limit rate(const char* name, std::uint64_t per_second, std::uint64_t burst) {
  return {.name = name, .amount = per_second, .period_ns = kNsPerSecond, .burst = burst};
}

// What of a key differs from the good one.
struct KeyValues {
  std::uint8_t flags = 0;
  const char* env = "live";
  std::uint8_t owner = 1;
  std::int64_t not_before = 0;
  std::int64_t expires = 0;
  std::int64_t suspended_until = 0;
  std::string bindings{};
  std::vector<std::string> scopes = {"orders:read", "refunds:*"};
  std::vector<Limit> plan{};
  std::vector<Limit> own{};
  std::uint8_t family = 1;
};

// A snapshot with one key for each case, and everything a decision needs. Lives for the whole of a test program.
class Bench {
 public:
  using Keys = std::vector<std::pair<const char*, KeyValues>>;
  explicit Bench(const Keys& keys, const std::vector<Limit>& owner_limits = {}) {
    publish::SnapshotWriter writer;
    publish::FinishedSnapshot finished;
    Status status = writer.open(dir_.path());
    fixture::Keys records;
    for (const auto& [text, values] : keys) {
      records.emplace_back(fixture::digest_of(text), make_record(writer, values, owner_limits));
    }
    std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [digest, record] : records) {
      status = status.ok() ? writer.key(digest, record) : status;
    }
    status = status.ok() ? writer.finish(fixture::meta_of(1), finished) : status;
    status = status.ok() ? file_.open(finished.path) : status;
    status = status.ok() ? snapshot_.open(file_.fd(), file_.bytes(), Lookup::index) : status;
    if (!status.ok() || !format_tables()) {
      (void)std::fprintf(stderr, "no snapshot: %s\n", fixture::describe(status).c_str());
      std::abort();
    }
    facts.address = make_address(std::array<std::uint8_t, 4>{10, 1, 2, 3});
    facts.method = kMethodGet;
    facts.host = "api.example.com";
    policy.environments = kLive;
  }

  [[nodiscard]] StoreView store() const { return {&snapshot_, kMethods}; }
  [[nodiscard]] const LimitTables& tables() const { return tables_; }
  [[nodiscard]] const Snapshot& snapshot() const { return snapshot_; }
  [[nodiscard]] Charge charge() const {
    Charge charge;
    charge.tables = &tables_;
    charge.takings = &takings_.emplace_back();
    return charge;
  }

  static Credential credential(const char* key) {
    Credential credential;
    credential.found = Found::key;
    credential.digests[0] = fixture::digest_of(key);
    return credential;
  }

  // A request with that key, its first pass.
  Verdict decide(const char* key, Charge* charge = nullptr) const {
    Recognition known;
    return decide(credential(key), known, charge);
  }
  Verdict decide(const Credential& credential, Recognition& known, Charge* charge) const {
    return apikey::decide(policy, credential, store(), facts, {{now}, {mono}, {}}, known, charge);
  }
  [[nodiscard]] Outcome outcome(const char* key) const { return decide(key).outcome; }

  LocationPolicy policy;
  RequestFacts facts;
  std::int64_t now = kNow;
  std::uint64_t mono = kMono;

 private:
  static Record make_record(publish::SnapshotWriter& writer, const KeyValues& values,
                            const std::vector<Limit>& owner_limits) {
    Owner owner{.name = "owner " + std::to_string(values.owner)};
    owner.id.fill(std::byte{values.owner});
    owner.limits = owner_limits;
    owner.is_suspended = values.owner >= 8;  // 8 for good, 9 until now + 10
    owner.suspended_until = {values.owner == 9 ? kNow + 10 : 0};
    Record record;
    record.flags = values.flags;
    record.env = writer.string(values.env);
    record.owner = writer.owner(owner);
    record.plan = values.plan.empty() ? 0 : writer.plan("plan", values.plan);
    record.scopes = writer.scope_set(values.scopes);
    record.bindings = values.bindings.empty() ? 0 : writer.string(values.bindings);
    record.limits = values.own.empty() ? 0 : writer.limits(values.own);
    record.family.bytes.fill(values.family);
    record.family.bytes[12] = 0;
    record.id = record.family;
    record.not_before = {values.not_before};
    record.expires = {values.expires};
    record.suspended_until = {values.suspended_until};
    return record;
  }
  static MonoNs clock() noexcept { return {kMono}; }
  bool format_tables() {
    const std::span<std::byte> memory = std::as_writable_bytes(std::span(lines_));
    return BucketTable::format(memory.first(memory.size() / 2), kSeed, clock, table_).ok() &&
           BucketTable::format(memory.subspan(memory.size() / 2), kSeed, clock, client_table_).ok();
  }

  static constexpr std::array<std::uint8_t, 1> kMethods = {0};
  struct alignas(128) Line {
    std::array<std::byte, 128> bytes{};
  };
  fixture::TempDir dir_;
  publish::MappedFile file_;
  Snapshot snapshot_;
  std::vector<Line> lines_ = std::vector<Line>(200);
  BucketTable table_;
  BucketTable client_table_;
  QuotaTable quotas_;
  FlightTable flights_;
  mutable std::deque<Takings> takings_;
  LimitTables tables_{&table_, &quotas_, &flights_, {}, {}, &client_table_, &flights_, {}};
};

std::string text_of(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes) {
    text.push_back(static_cast<char>(b));
  }
  return text;
}

std::string bound_to(const char* network, const char* origin, MethodSet methods, const char* host) {
  std::array<std::byte, kMaxBindingBytes> buffer{};
  std::span<std::byte> rest(buffer);
  Network parsed;
  assert_true(parse_network(network, parsed).ok());
  rest = encode_network(parsed, rest);
  rest = encode_origin(origin, rest);
  rest = encode_methods(methods, rest);
  rest = encode_host(host, rest);
  return text_of(std::span(buffer).first(buffer.size() - rest.size()));
}

const Bench::Keys& all_keys() {
  static const std::string bound = bound_to("10.0.0.0/8", "https://app.example.com", kMethodGet, "api.example.com");
  static const Bench::Keys keys = {
      {"good", {}},
      {"revoked", {.flags = kFlagRevoked | kFlagSuspended, .not_before = kNow + 1, .expires = kNow - 1}},
      {"suspended", {.flags = kFlagSuspended, .not_before = kNow + 1, .expires = kNow - 1}},
      {"suspended for a while", {.flags = kFlagSuspended, .suspended_until = kNow + 10}},
      {"owner suspended", {.owner = 8, .expires = kNow - 1}},
      {"owner suspended for a while", {.owner = 9}},
      {"not yet", {.env = "test", .not_before = kNow + 10, .expires = kNow + 20}},
      {"expires", {.env = "live", .expires = kNow + 10}},
      {"test", {.flags = kFlagRequireTls, .env = "test", .bindings = bound, .scopes = {}}},
      {"bound", {.flags = kFlagRequireTls, .bindings = bound, .scopes = {}}},
      {"writer", {.scopes = {"orders:write"}}},
      {"all", {.scopes = {"*"}}},
      {"none", {.scopes = {}}},
  };
  return keys;
}

std::unique_ptr<Bench> all() { return std::make_unique<Bench>(all_keys()); }

void expect(Outcome seen, Outcome wanted) {
  if (seen != wanted) {
    const std::string_view a = outcome_name(seen);
    const std::string_view b = outcome_name(wanted);
    print_error("outcome %.*s, wanted %.*s\n", static_cast<int>(a.size()), a.data(), static_cast<int>(b.size()),
                b.data());
  }
  assert_true(seen == wanted);
}

void rows_2_and_3_no_key_and_no_whole_key(void**) {
  auto bench = all();
  Credential credential;
  Recognition known;
  expect(bench->decide(credential, known, nullptr).outcome, Outcome::missing);
  bench->policy.is_optional = true;
  expect(bench->decide(credential, known, nullptr).outcome, Outcome::anonymous);
  assert_false(known.has_record);
  credential.found = Found::malformed;
  expect(bench->decide(credential, known, nullptr).outcome, Outcome::malformed);  // optional or not
}

void row_4_no_usable_snapshot(void**) {
  auto bench = all();
  const Credential credential = Bench::credential("good");
  constexpr std::array<std::uint8_t, 1> no_such_method = {kMaxConfiguredMethods};
  for (const StoreView& store :
       {StoreView{}, StoreView{&bench->snapshot(), {}}, StoreView{&bench->snapshot(), no_such_method}}) {
    for (const bool allows : {false, true}) {
      bench->policy.allows_on_error = allows;
      Recognition known;
      const Verdict verdict =
          decide(bench->policy, credential, store, bench->facts, {{kNow}, {kMono}, {}}, known, nullptr);
      expect(verdict.outcome, allows ? Outcome::bypass : Outcome::unavailable);
      expect(known.outcome, Outcome::unavailable);
      assert_false(known.has_record);
    }
  }
  // on_error=allow is about our failures, not about bad keys.
  expect(bench->outcome("no such key"), Outcome::unknown);
}

void row_4_a_damaged_record_is_not_a_bad_key(void**) {
  fixture::TempDir dir;
  const auto path = fixture::build(dir, 1);
  publish::MappedFile file;
  assert_true(file.open(path).ok());
  fixture::Bytes bytes(file.bytes().begin(), file.bytes().end());
  Snapshot snapshot;
  assert_true(snapshot.open(file.fd(), bytes, Lookup::index).ok());
  // The record stands behind its digest, somewhere in the file.
  const Digest digest = fixture::digest_of("key 0");
  const auto needle = std::as_bytes(std::span(digest.bytes));
  const auto at = std::search(bytes.begin(), bytes.end(), needle.begin(), needle.end());
  assert_true(at != bytes.end());
  constexpr std::array<std::uint8_t, 1> methods = {0};
  const StoreView store{&snapshot, methods};
  Recognition known;
  recognise(Bench::credential("key 0"), store, {kNow}, known);
  expect(known.outcome, Outcome::ok);
  *(at + 32 + 72) ^= std::byte{1};  // a bit of `expires`
  known = {};
  recognise(Bench::credential("key 0"), store, {kNow}, known);
  expect(known.outcome, Outcome::unavailable);
  snapshot.close();
}

void row_5_and_the_methods_in_order(void**) {
  auto bench = all();
  expect(bench->outcome("no such key"), Outcome::unknown);
  // The second of two methods finds it; a method that is not the snapshot's does not count.
  Credential credential;
  credential.found = Found::key;
  credential.digests[2] = fixture::digest_of("good");
  constexpr std::array<std::uint8_t, 2> both = {1, 2};
  constexpr std::array<std::uint8_t, 2> others = {1, 3};
  Recognition known;
  recognise(credential, {&bench->snapshot(), both}, {kNow}, known);
  expect(known.outcome, Outcome::ok);
  known = {};
  recognise(credential, {&bench->snapshot(), others}, {kNow}, known);
  expect(known.outcome, Outcome::unknown);
}

void row_6_in_force_at_that_second(void**) {
  auto bench = all();
  expect(bench->outcome("good"), Outcome::ok);
  expect(bench->outcome("revoked"), Outcome::revoked);
  expect(bench->outcome("suspended"), Outcome::suspended);
  expect(bench->outcome("suspended for a while"), Outcome::suspended);
  expect(bench->outcome("owner suspended"), Outcome::suspended);
  expect(bench->outcome("owner suspended for a while"), Outcome::suspended);
  expect(bench->outcome("not yet"), Outcome::not_yet_valid);
  expect(bench->outcome("expires"), Outcome::ok);
  bench->now = kNow + 9;
  expect(bench->outcome("suspended for a while"), Outcome::suspended);
  expect(bench->outcome("owner suspended for a while"), Outcome::suspended);
  expect(bench->outcome("not yet"), Outcome::not_yet_valid);
  expect(bench->outcome("expires"), Outcome::ok);
  bench->now = kNow + 10;
  expect(bench->outcome("suspended for a while"), Outcome::ok);
  expect(bench->outcome("owner suspended for a while"), Outcome::ok);
  expect(bench->outcome("not yet"), Outcome::wrong_environment);
  expect(bench->outcome("expires"), Outcome::expired);
  bench->now = kNow + 20;
  expect(bench->outcome("not yet"), Outcome::expired);
  expect(bench->outcome("suspended"), Outcome::suspended);
  expect(bench->outcome("owner suspended"), Outcome::suspended);
}

void a_refused_key_is_recognised_all_the_same(void**) {
  auto bench = all();
  Recognition known;
  expect(bench->decide(Bench::credential("revoked"), known, nullptr).outcome, Outcome::revoked);
  assert_true(known.has_record);
  assert_true(known.env == "live");
  std::string_view owner;
  assert_true(bench->snapshot().string(known.owner.name, owner));
  assert_true(owner == "owner 1");
}

void row_7_each_condition_in_order(void**) {
  auto bench = all();
  expect(bench->outcome("test"), Outcome::wrong_environment);
  bench->policy.allows_any_environment = true;
  bench->facts.address = make_address(std::array<std::uint8_t, 4>{11, 1, 2, 3});
  bench->facts.origin = "https://evil.example.com";
  bench->facts.method = kMethodPost;
  bench->facts.host = "other.example.com";
  for (const char* key : {"test", "bound"}) {
    expect(bench->outcome(key), Outcome::wrong_address);
  }
  bench->facts.address = make_address(std::array<std::uint8_t, 4>{10, 1, 2, 3});
  expect(bench->outcome("bound"), Outcome::tls_required);
  bench->facts.is_tls = true;
  expect(bench->outcome("bound"), Outcome::wrong_origin);
  bench->facts.origin = "https://app.example.com";
  expect(bench->outcome("bound"), Outcome::wrong_method);
  bench->facts.method = kMethodGet;
  expect(bench->outcome("bound"), Outcome::wrong_host);
  bench->facts.host = "api.example.com";
  expect(bench->outcome("bound"), Outcome::ok);
  expect(bench->outcome("test"), Outcome::ok);
  bench->policy.allows_any_environment = false;
  constexpr std::array<std::string_view, 2> two = {"staging", "test"};
  bench->policy.environments = two;
  expect(bench->outcome("test"), Outcome::ok);
  expect(bench->outcome("bound"), Outcome::wrong_environment);
}

void row_8_scopes_of_one_line_are_alternatives(void**) {
  auto bench = all();
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, kReadOrAdmin}};
  bench->policy.scope_lines = lines;
  expect(bench->outcome("good"), Outcome::ok);
  expect(bench->outcome("all"), Outcome::ok);
  const Verdict refused = bench->decide("writer");
  expect(refused.outcome, Outcome::scope);
  assert_true(refused.required_scopes.data() == kReadOrAdmin.data());
  expect(bench->outcome("none"), Outcome::scope);
  // Row 7 stands before row 8.
  expect(bench->outcome("test"), Outcome::wrong_environment);
  bench->policy.allows_any_scope = true;
  expect(bench->outcome("none"), Outcome::ok);
}

void row_8_every_line_that_applies_has_to_hold(void**) {
  auto bench = all();
  const std::array<ScopeLine, 3> lines = {ScopeLine{kMethodGet | kMethodHead, kReadOrAdmin},
                                          ScopeLine{kMethodGet, kRefunds}, ScopeLine{kMethodPost, kWrite}};
  bench->policy.scope_lines = lines;
  expect(bench->outcome("good"), Outcome::ok);  // refunds:* grants refunds:read:own
  const Verdict reading = bench->decide("writer");
  expect(reading.outcome, Outcome::scope);
  assert_true(reading.required_scopes.data() == kReadOrAdmin.data());
  bench->facts.method = kMethodPost;
  expect(bench->outcome("writer"), Outcome::ok);
  expect(bench->outcome("good"), Outcome::scope);
  // What no line names is refused, even to a key that may do everything.
  for (const MethodSet method : {MethodSet{kMethodDelete}, MethodSet{0}}) {
    bench->facts.method = method;
    const Verdict unnamed = bench->decide("all");
    expect(unnamed.outcome, Outcome::scope);
    assert_true(unnamed.required_scopes.empty());
  }
  // A line without methods is for those without a name too.
  const std::array<ScopeLine, 1> every = {ScopeLine{~MethodSet{0}, kWrite}};
  bench->policy.scope_lines = every;
  expect(bench->outcome("all"), Outcome::ok);
  expect(bench->outcome("good"), Outcome::scope);
}

void row_9_limits_of_plan_key_and_owner(void**) {
  const Bench bench(
      {
          {"a", {.plan = {rate("default", 10, 5), rate("hourly", 10, 9)}, .family = 1}},
          {"b",
           {.plan = {rate("default", 10, 5), rate("hourly", 10, 9)}, .own = {rate("default", 10, 2)}, .family = 2}},
          {"a rotated", {.plan = {rate("default", 10, 5), rate("hourly", 10, 9)}, .family = 1}},
          {"stranger", {.owner = 2, .family = 3}},
      },
      {rate("team", 10, 100)});
  Recognition known;
  std::array<LimitUse, kMaxUses> uses;
  const Charge looking = bench.charge();
  const Clocks clocks{{kNow}, {kMono}, {}};
  const auto gather = [&](std::span<LimitUse> room, std::size_t& found) {
    return gather_limits(bench.policy, &bench.snapshot(), known, bench.facts, clocks, looking, room, found);
  };
  std::size_t count = 0;
  recognise(Bench::credential("b"), bench.store(), {kNow}, known);
  assert_true(gather(uses, count));
  assert_int_equal(count, 3);
  assert_true(std::string_view(uses[0].name) == "default");
  assert_int_equal(uses[0].size, 2);
  assert_true(std::string_view(uses[1].name) == "hourly");
  assert_true(std::string_view(uses[2].name) == "team");
  assert_int_equal(uses[2].amount, 10);
  // More than there is room for: nobody knows what applies.
  assert_false(gather(std::span(uses).first(2), count));

  // Two keys of a family share its buckets; another family has its own.
  const auto take = [&](const char* key) {
    Charge charge = bench.charge();
    return bench.decide(key, &charge);
  };
  for (std::uint64_t i = 0; i < 5; ++i) {
    const Verdict verdict = take(i % 2 == 0 ? "a" : "a rotated");
    expect(verdict.outcome, Outcome::ok);
    assert_true(verdict.has_limit);
    assert_true(verdict.limit_name == "default");
    assert_int_equal(verdict.limit_size, 5);
    assert_int_equal(verdict.remaining, 4 - i);
  }
  const Verdict refused = take("a rotated");
  expect(refused.outcome, Outcome::rate_limited);
  assert_true(refused.limit_name == "default");
  assert_true(refused.retry_after_ns > 0 && refused.retry_after_ns <= kNsPerSecond / 9);
  expect(take("b").outcome, Outcome::ok);
  expect(take("b").outcome, Outcome::ok);
  expect(take("b").outcome, Outcome::rate_limited);
  // The owner's limit counts the requests of all its keys that were let in, and only those: 5 and 2.
  recognise(Bench::credential("a"), bench.store(), {kNow}, known = {});
  assert_true(gather(uses, count));
  assert_int_equal(look_at_limit(bench.tables(), uses[2], clocks).remaining, 93);
  assert_int_equal(take("stranger").remaining, 99);
}

void row_9_comes_last_and_costs_nothing_before(void**) {
  Bench bench({{"a", {.scopes = {}, .plan = {rate("default", 1, 1)}}}});
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, kWrite}};
  bench.policy.scope_lines = lines;
  for (int i = 0; i < 5; ++i) {
    Charge charge = bench.charge();
    const Verdict verdict = bench.decide("a", &charge);
    expect(verdict.outcome, Outcome::scope);
    assert_false(verdict.has_limit);
  }
  bench.policy.scope_lines = {};
  // Without a charge nothing is taken, and the limit is not asked.
  for (int i = 0; i < 5; ++i) {
    expect(bench.decide("a").outcome, Outcome::ok);
  }
  Charge charge = bench.charge();
  expect(bench.decide("a", &charge).outcome, Outcome::ok);
  charge = bench.charge();
  expect(bench.decide("a", &charge).outcome, Outcome::rate_limited);
}

void a_client_request_is_charged_once(void**) {
  Bench bench({{"a", {.plan = {rate("default", 1, 3)}}}});
  Charge charge = bench.charge();
  Recognition known;
  const Credential credential = Bench::credential("a");
  for (int pass = 0; pass < 4; ++pass) {
    const Verdict verdict = bench.decide(credential, known, &charge);
    expect(verdict.outcome, Outcome::ok);
    assert_int_equal(verdict.remaining, 2);
    assert_true(verdict.has_limit);
  }
  assert_int_equal(charge.takings->count, 1);
  charge = bench.charge();
  const std::array<MeasuredCost, 1> costs = {MeasuredCost{{}, 2}};
  charge.costs = costs;
  assert_int_equal(bench.decide("a", &charge).remaining, 0);
}

void an_unsaid_method_is_not_guessed(void**) {
  std::array<std::byte, 64> buffer;
  const auto rest = encode_methods(kMethodGet | kMethodHead, buffer);
  const std::string bound(static_cast<const char*>(static_cast<const void*>(buffer.data())),
                          buffer.size() - rest.size());
  Bench bench({{"a", {.scopes = {"orders:read"}}}, {"b", {.bindings = bound, .scopes = {"orders:read"}}}});
  bench.facts.method = 0;
  bench.facts.has_method = false;
  expect(bench.outcome("a"), Outcome::ok);
  expect(bench.outcome("b"), Outcome::wrong_method);
  // A line for all methods does not make up for one that names some.
  const std::array<ScopeLine, 2> lines = {ScopeLine{~MethodSet{0}, kReadOrAdmin}, ScopeLine{kMethodPost, kWrite}};
  bench.policy.scope_lines = lines;
  expect(bench.outcome("a"), Outcome::wrong_method);
  bench.policy.scope_lines = std::span(lines).first(1);
  expect(bench.outcome("a"), Outcome::ok);
}

void an_unsaid_address_is_in_no_network(void**) {
  std::array<std::byte, 64> buffer;
  Network network;
  assert_true(parse_network("10.0.0.0/8", network).ok());
  const auto rest = encode_network(network, buffer);
  const std::string bound(static_cast<const char*>(static_cast<const void*>(buffer.data())),
                          buffer.size() - rest.size());
  Bench bench({{"a", {.bindings = bound}}});
  expect(bench.outcome("a"), Outcome::ok);
  bench.facts.has_address = false;
  expect(bench.outcome("a"), Outcome::wrong_address);
}

void a_preflight_counts_for_its_address(void**) {
  Bench bench({{"a", {.scopes = {"orders:read"}}}});
  const std::array<PolicyLimit, 1> limits = {
      PolicyLimit{.limit = {LimitKind::rate, {1, 3600 * kNsPerSecond}, 2, "here"}}};
  const std::array<std::string_view, 1> required = {"tokens"};
  bench.policy.limits = limits;
  bench.policy.required_limits = required;
  const auto preflight = [&] {
    Charge charge = bench.charge();
    return decide_preflight(bench.policy, bench.facts, {{bench.now}, {bench.mono}, {}}, &charge).outcome;
  };
  expect(decide_preflight(bench.policy, bench.facts, {{bench.now}, {bench.mono}, {}}, nullptr).outcome,
         Outcome::preflight);
  expect(preflight(), Outcome::preflight);
  expect(preflight(), Outcome::preflight);
  expect(preflight(), Outcome::rate_limited);
  bench.policy.required_limits = {};
  Charge charge = bench.charge();
  expect(bench.decide("a", &charge).outcome, Outcome::ok);  // not the key's
  bench.facts.address.bytes[3] = 9;
  expect(preflight(), Outcome::preflight);
  bench.facts.address.bytes[3] = 3;
  bench.policy.dry_run = DryRun::limits;
  expect(preflight(), Outcome::rate_limited);
}

void what_is_counted_elsewhere_does_not_count_here(void**) {
  Bench bench({{"a", {.plan = {rate("search", 1, 1), rate("default", 1, 3)}}}});
  const std::array<std::string_view, 1> elsewhere = {"search"};
  const std::array<PolicyLimit, 2> limits = {
      PolicyLimit{.limit = {LimitKind::rate, {1, 3600 * kNsPerSecond}, 1, "search.here"}, .stands_here = false},
      PolicyLimit{.limit = {LimitKind::rate, {1, 3600 * kNsPerSecond}, 2, "search.now"}, .stands_here = true}};
  bench.policy.uncounted_measures = elsewhere;
  bench.policy.limits = limits;
  for (const Outcome wanted : {Outcome::ok, Outcome::ok, Outcome::rate_limited}) {
    Charge charge = bench.charge();
    const Verdict verdict = bench.decide("a", &charge);
    expect(verdict.outcome, wanted);
    assert_true(verdict.limit_name == "search.now");
  }
}

void a_refused_request_stays_refused(void**) {
  Bench bench({{"a", {.scopes = {"orders:read"}, .plan = {rate("default", 1, 1)}}}});
  Charge first = bench.charge();
  expect(bench.decide("a", &first).outcome, Outcome::ok);
  Charge charge = bench.charge();
  Recognition known;
  const Credential credential = Bench::credential("a");
  expect(bench.decide(credential, known, &charge).outcome, Outcome::rate_limited);
  bench.mono += 10 * kNsPerSecond;  // by now there would be a token
  const Verdict again = bench.decide(credential, known, &charge);
  expect(again.outcome, Outcome::rate_limited);
  assert_true(again.limit_name == "default");
  // Out of scope in one location, it gets nothing from the next one either, and pays for nothing.
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, kWrite}};
  bench.policy.scope_lines = lines;
  charge = bench.charge();
  expect(bench.decide(credential, known, &charge).outcome, Outcome::scope);
  bench.policy.scope_lines = {};
  const Verdict elsewhere = bench.decide(credential, known, &charge);
  expect(elsewhere.outcome, Outcome::scope);
  assert_true(elsewhere.required_scopes.data() == kWrite.data());
  charge = bench.charge();
  expect(bench.decide(credential, known, &charge).outcome, Outcome::ok);
}

void each_location_decides_anew_from_one_recognition(void**) {
  auto bench = all();
  Recognition known;
  const Credential credential = Bench::credential("expires");
  expect(bench->decide(credential, known, nullptr).outcome, Outcome::ok);
  bench->now = kNow + 100;  // the request began before
  expect(bench->decide(credential, known, nullptr).outcome, Outcome::ok);
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, kWrite}};
  bench->policy.scope_lines = lines;
  expect(bench->decide(credential, known, nullptr).outcome, Outcome::scope);
}

PolicyLimit location_limit(const char* name, std::uint64_t burst, LimitBy by) {
  PolicyLimit limit;
  limit.limit.rate = {1, 3600 * kNsPerSecond};
  limit.limit.burst = burst;
  limit.limit.name = name;
  limit.by = by;
  return limit;
}

void row_9_a_location_has_limits_of_its_own(void**) {
  Bench bench({{"a", {.family = 1}}, {"b", {.family = 2}}, {"other", {.owner = 2, .family = 3}}});
  const std::array<PolicyLimit, 2> by_key = {location_limit("each", 2, LimitBy::key),
                                             location_limit("all", 3, LimitBy::owner)};
  bench.policy.limits = by_key;
  const auto take = [&](const char* key, std::string_view value = {}) {
    Charge charge = bench.charge();
    const std::array<std::string_view, 1> values = {value};
    charge.values = values;
    return bench.decide(key, &charge);
  };
  expect(take("a").outcome, Outcome::ok);
  expect(take("a").outcome, Outcome::ok);
  Verdict refused = take("a");
  expect(refused.outcome, Outcome::rate_limited);
  assert_true(refused.limit_name == "each");
  expect(take("b").outcome, Outcome::ok);
  refused = take("b");
  expect(refused.outcome, Outcome::rate_limited);
  assert_true(refused.limit_name == "all");
  expect(take("other").outcome, Outcome::ok);

  // By a value of the request; who has none is known by his address.
  const std::array<PolicyLimit, 1> by_value = {location_limit("value", 1, LimitBy::value)};
  bench.policy.limits = by_value;
  expect(take("a", "x").outcome, Outcome::ok);
  expect(take("b", "x").outcome, Outcome::rate_limited);
  expect(take("a", "y").outcome, Outcome::ok);
  expect(take("a").outcome, Outcome::ok);
  expect(take("b").outcome, Outcome::rate_limited);
  bench.facts.address = make_address(std::array<std::uint8_t, 4>{10, 1, 2, 4});
  expect(take("b").outcome, Outcome::ok);
  // Salted, it is another limit though it has the same name.
  std::array<PolicyLimit, 1> salted = by_value;
  salted[0].limit.place = 1;
  bench.policy.limits = salted;
  expect(take("a", "x").outcome, Outcome::ok);
}

void row_9_the_anonymous_are_limited_by_address(void**) {
  Bench bench(Bench::Keys{{"a", {}}});
  const std::array<PolicyLimit, 1> limits = {location_limit("each", 1, LimitBy::key)};
  bench.policy.limits = limits;
  bench.policy.is_optional = true;
  Recognition known;
  Charge charge = bench.charge();
  expect(bench.decide(Credential{}, known, &charge).outcome, Outcome::anonymous);
  charge = bench.charge();
  expect(bench.decide(Credential{}, known, &charge).outcome, Outcome::rate_limited);
  charge = bench.charge();
  expect(bench.decide("a", &charge).outcome, Outcome::ok);
}

// Keys and owners have one table, what clients can make up another.
void row_9_what_clients_choose_is_counted_apart(void**) {
  Bench bench({{"a", {.family = 1}}, {"revoked", {.flags = kFlagRevoked}}});
  const auto used = [&] {
    return std::pair(bench.tables().buckets->usage({kMono}).used, bench.tables().client_buckets->usage({kMono}).used);
  };
  const auto decide = [&](const char* key, LimitBy by, std::string_view value) {
    Charge charge = bench.charge();
    const std::array<std::string_view, 1> values = {value};
    charge.values = values;
    const std::array<PolicyLimit, 1> limits = {location_limit("each", 9, by)};
    bench.policy.limits = limits;
    Recognition known;
    bench.decide(key == nullptr ? Credential{} : Bench::credential(key), known, &charge);
    bench.policy.limits = {};
  };
  bench.policy.is_optional = true;
  decide("a", LimitBy::key, {});
  assert_true(used() == std::pair(std::uint64_t{1}, std::uint64_t{0}));
  decide("a", LimitBy::owner, {});
  assert_true(used() == std::pair(std::uint64_t{2}, std::uint64_t{0}));
  decide("a", LimitBy::value, "x");
  assert_true(used() == std::pair(std::uint64_t{2}, std::uint64_t{1}));
  decide("a", LimitBy::value, {});  // by address
  assert_true(used() == std::pair(std::uint64_t{2}, std::uint64_t{2}));
  bench.facts.address = make_address(std::array<std::uint8_t, 4>{10, 1, 2, 4});
  decide(nullptr, LimitBy::key, {});
  bench.facts.address = make_address(std::array<std::uint8_t, 4>{10, 1, 2, 5});
  decide(nullptr, LimitBy::owner, {});
  assert_true(used() == std::pair(std::uint64_t{2}, std::uint64_t{4}));
  bench.policy.fail_limit = {true, false, {1, 60 * kNsPerSecond, 3}};
  decide("revoked", LimitBy::key, {});
  assert_true(takes_notice(bench.tables(), bench.facts.address, {kMono}));
  assert_true(used() == std::pair(std::uint64_t{2}, std::uint64_t{6}));
}

// As with a key: what is not there is missed, and dry run lets pass.
void row_9_is_the_same_for_the_anonymous(void**) {
  Bench bench(Bench::Keys{{"a", {}}});
  constexpr std::array<std::string_view, 1> required = {"tokens"};
  const auto decide = [&] {
    Recognition known;
    Charge charge = bench.charge();
    return bench.decide(Credential{}, known, &charge);
  };
  bench.policy.is_optional = true;
  expect(decide().outcome, Outcome::anonymous);
  bench.policy.required_limits = required;
  const Verdict refused = decide();
  expect(refused.outcome, Outcome::rate_limited);
  assert_true(refused.limit_name == "tokens");
  bench.policy.dry_run = DryRun::limits;
  const Verdict noted = decide();
  expect(noted.outcome, Outcome::rate_limited);
  assert_true(noted.is_dry_run && passes(noted));
}

void row_9_a_limit_can_be_required(void**) {
  Bench bench({{"a", {.plan = {rate("tokens", 10, 5)}}}, {"b", {}}});
  constexpr std::array<std::string_view, 1> required = {"tokens"};
  bench.policy.required_limits = required;
  Charge charge = bench.charge();
  expect(bench.decide("a", &charge).outcome, Outcome::ok);
  charge = bench.charge();
  const Verdict refused = bench.decide("b", &charge);
  expect(refused.outcome, Outcome::rate_limited);
  assert_true(refused.limit_name == "tokens");
  assert_int_equal(refused.limit_size, 0);
  assert_true(refused.retry_after_ns == UINT64_MAX);
}

void failed_attempts_are_counted_by_address(void**) {
  Bench bench({{"a", {}}, {"revoked", {.flags = kFlagRevoked}}});
  bench.policy.fail_limit = {true, false, {1, 60 * kNsPerSecond, 3}};
  const auto attempt = [&](const char* key) {
    Charge charge = bench.charge();
    return bench.decide(key, &charge);
  };
  expect(attempt("revoked").outcome, Outcome::revoked);
  expect(attempt("no such").outcome, Outcome::unknown);
  // One client request is one attempt, however many locations it meets; without a credential it is none.
  Charge charge = bench.charge();
  Recognition known;
  Credential malformed;
  malformed.found = Found::malformed;
  expect(bench.decide(malformed, known, &charge).outcome, Outcome::malformed);
  expect(bench.decide(malformed, known, &charge).outcome, Outcome::malformed);
  charge = bench.charge();
  expect(bench.decide(Credential{}, known, &charge).outcome, Outcome::missing);
  const Verdict throttled = attempt("no such");
  expect(throttled.outcome, Outcome::throttled);
  expect(throttled.reason, Outcome::unknown);
  assert_int_equal(throttled.retry_after_ns, 60 * kNsPerSecond);
  assert_true(throttled_for(bench.policy.fail_limit, bench.tables(), bench.facts.address, {bench.mono}) ==
              60 * kNsPerSecond);
  expect(attempt("a").outcome, Outcome::ok);
  // A look at the key is no attempt; another address has its own.
  expect(bench.decide("no such").outcome, Outcome::unknown);
  std::array<std::uint8_t, 16> six = {0x20, 1, 0xd, 0xb8};
  bench.facts.address = make_address(six);
  for (std::uint8_t i = 0; i < 3; ++i) {
    six[15] = i;  // one /64
    bench.facts.address = make_address(six);
    expect(attempt("no such").outcome, Outcome::unknown);
  }
  expect(attempt("no such").outcome, Outcome::throttled);
  six[7] = 1;
  bench.facts.address = make_address(six);
  expect(attempt("no such").outcome, Outcome::unknown);
  assert_true(takes_notice(bench.tables(), bench.facts.address, {bench.mono}));
  assert_false(takes_notice(bench.tables(), bench.facts.address, {bench.mono + 59 * kNsPerSecond}));
  assert_true(takes_notice(bench.tables(), bench.facts.address, {bench.mono + 60 * kNsPerSecond}));
}

void a_dry_run_lets_pass_what_it_names(void**) {
  Bench bench({{"a", {.scopes = {}, .plan = {rate("default", 1, 1)}}}, {"revoked", {.flags = kFlagRevoked}}});
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, kWrite}};
  bench.policy.scope_lines = lines;
  const auto request = [&](const char* key, DryRun dry_run) {
    bench.policy.dry_run = dry_run;
    Charge charge = bench.charge();
    return bench.decide(key, &charge);
  };
  Verdict verdict = request("a", DryRun::limits);
  expect(verdict.outcome, Outcome::scope);
  assert_false(passes(verdict));
  // Scopes are let pass, and the limits are in force.
  verdict = request("a", DryRun::scopes);
  expect(verdict.outcome, Outcome::scope);
  assert_true(passes(verdict));
  assert_int_equal(verdict.remaining, 0);
  verdict = request("a", DryRun::scopes);
  expect(verdict.outcome, Outcome::rate_limited);
  assert_false(passes(verdict));
  verdict = request("a", DryRun::on);
  expect(verdict.outcome, Outcome::scope);
  assert_true(passes(verdict));
  bench.policy.scope_lines = {};
  verdict = request("a", DryRun::limits);
  expect(verdict.outcome, Outcome::rate_limited);
  assert_true(passes(verdict));
  assert_false(passes(request("revoked", DryRun::limits)));
  verdict = request("revoked", DryRun::on);
  expect(verdict.outcome, Outcome::revoked);
  assert_true(passes(verdict));
  assert_true(dry_run_name(verdict.outcome) == "revoked_dry_run");
}

// What decides, and a newer snapshot that only takes away.
struct UnderVeto {
  Bench deciding;
  Bench newer;
  bool has_all_methods = true;

  Verdict decide(const Credential& credential, Recognition& known, Charge* charge = nullptr) const {
    static constexpr std::array<std::uint8_t, 1> methods = {0};
    StoreView store = deciding.store();
    store.veto = &newer.snapshot();
    store.veto_methods = methods;
    store.has_all_veto_methods = has_all_methods;
    const Clocks clocks{{deciding.now}, {deciding.mono}, {}};
    return apikey::decide(deciding.policy, credential, store, deciding.facts, clocks, known, charge);
  }
  [[nodiscard]] Outcome outcome(const char* key) const {
    Recognition known;
    return decide(Bench::credential(key), known).outcome;
  }
};

void a_veto_takes_away(void**) {
  UnderVeto both{Bench({{"kept", {}},
                        {"revoked now", {}},
                        {"suspended now", {}},
                        {"suspended for a while", {}},
                        {"owner suspended now", {}},
                        {"expires now", {}},
                        {"begins later now", {}},
                        {"deleted", {}},
                        {"revoked before", {.flags = kFlagRevoked}},
                        {"extended", {.expires = kNow}},
                        {"wider now", {.scopes = {}}}}),
                 Bench({{"kept", {}},
                        {"revoked now", {.flags = kFlagRevoked}},
                        {"suspended now", {.flags = kFlagSuspended}},
                        {"suspended for a while", {.flags = kFlagSuspended, .suspended_until = kNow + 10}},
                        {"owner suspended now", {.owner = 8}},
                        {"expires now", {.expires = kNow}},
                        {"begins later now", {.not_before = kNow + 10}},
                        {"revoked before", {}},
                        {"extended", {.expires = kNow + 100}},
                        {"wider now", {}}})};
  for (const bool has_all : {true, false}) {
    both.has_all_methods = has_all;
    both.deciding.now = kNow;
    expect(both.outcome("kept"), Outcome::ok);
    expect(both.outcome("revoked now"), Outcome::revoked);
    expect(both.outcome("suspended now"), Outcome::suspended);
    expect(both.outcome("suspended for a while"), Outcome::suspended);
    expect(both.outcome("owner suspended now"), Outcome::suspended);
    expect(both.outcome("expires now"), Outcome::expired);
    expect(both.outcome("begins later now"), Outcome::not_yet_valid);
    expect(both.outcome("deleted"), Outcome::unknown);
    // It gives nothing.
    expect(both.outcome("revoked before"), Outcome::revoked);
    expect(both.outcome("extended"), Outcome::expired);
    const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, kReadOrAdmin}};
    both.deciding.policy.scope_lines = lines;
    expect(both.outcome("wider now"), Outcome::scope);
    both.deciding.policy.scope_lines = {};
    both.deciding.now = kNow + 10;
    expect(both.outcome("suspended for a while"), Outcome::ok);
  }
}

void new_keys_under_a_veto_are_not_called_unknown(void**) {
  UnderVeto both{Bench(Bench::Keys{{"old", {}}}),
                 Bench({{"old", {}}, {"new", {}}, {"new and revoked", {.flags = kFlagRevoked}}})};
  expect(both.outcome("new"), Outcome::unavailable);
  expect(both.outcome("new and revoked"), Outcome::revoked);
  // Every method of the newer one is known: what it does not have is nowhere.
  expect(both.outcome("no such key"), Outcome::unknown);
  both.has_all_methods = false;
  expect(both.outcome("no such key"), Outcome::unavailable);
  // That is no fault of the store's: on_error=allow lets nobody in.
  both.deciding.policy.allows_on_error = true;
  expect(both.outcome("new"), Outcome::unavailable);
  expect(both.outcome("no such key"), Outcome::unavailable);
  expect(both.outcome("old"), Outcome::ok);
}

void guesses_under_a_veto_count(void**) {
  UnderVeto both{Bench(Bench::Keys{{"old", {}}}), Bench(Bench::Keys{{"old", {}}, {"new", {}}})};
  both.has_all_methods = false;
  both.deciding.policy.fail_limit = {.is_on = true, .limit = {1, 60 * kNsPerSecond, 2}};
  const auto attempt = [&](const char* key) {
    Recognition known;
    Charge charge = both.deciding.charge();
    return both.decide(Bench::credential(key), known, &charge).outcome;
  };
  const auto wait = [&] {
    return throttled_for(both.deciding.policy.fail_limit, both.deciding.tables(), both.deciding.facts.address,
                         {both.deciding.mono});
  };
  for (int i = 0; i < 5; ++i) {
    expect(attempt("new"), Outcome::unavailable);
  }
  assert_int_equal(wait(), 0);
  for (int i = 0; i < 5; ++i) {
    expect(attempt("no such key"), Outcome::unavailable);  // never throttled: it may be a new key
  }
  assert_int_not_equal(wait(), 0);
  expect(attempt("old"), Outcome::ok);
}

void a_damaged_veto_says_nothing_about_a_key(void**) {
  Bench deciding(Bench::Keys{{"key 0", {}}});
  fixture::TempDir dir;
  publish::MappedFile file;
  assert_true(file.open(fixture::build(dir, 1)).ok());
  fixture::Bytes bytes(file.bytes().begin(), file.bytes().end());
  Snapshot newer;
  assert_true(newer.open(file.fd(), bytes, Lookup::index).ok());
  StoreView store = deciding.store();
  store.veto = &newer;
  Recognition known;
  recognise(Bench::credential("key 0"), store, {kNow}, known);
  expect(known.outcome, Outcome::ok);
  const Digest digest = fixture::digest_of("key 0");
  const auto needle = std::as_bytes(std::span(digest.bytes));
  const auto at = std::search(bytes.begin(), bytes.end(), needle.begin(), needle.end());
  *(at + 32 + 72) ^= std::byte{1};
  known = {};
  recognise(Bench::credential("key 0"), store, {kNow}, known);
  expect(known.outcome, Outcome::unavailable);
  newer.close();
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(rows_2_and_3_no_key_and_no_whole_key),
      cmocka_unit_test(row_4_no_usable_snapshot),
      cmocka_unit_test(row_4_a_damaged_record_is_not_a_bad_key),
      cmocka_unit_test(row_5_and_the_methods_in_order),
      cmocka_unit_test(row_6_in_force_at_that_second),
      cmocka_unit_test(a_refused_key_is_recognised_all_the_same),
      cmocka_unit_test(row_7_each_condition_in_order),
      cmocka_unit_test(row_8_scopes_of_one_line_are_alternatives),
      cmocka_unit_test(row_8_every_line_that_applies_has_to_hold),
      cmocka_unit_test(row_9_limits_of_plan_key_and_owner),
      cmocka_unit_test(row_9_comes_last_and_costs_nothing_before),
      cmocka_unit_test(row_9_a_location_has_limits_of_its_own),
      cmocka_unit_test(row_9_the_anonymous_are_limited_by_address),
      cmocka_unit_test(row_9_what_clients_choose_is_counted_apart),
      cmocka_unit_test(row_9_is_the_same_for_the_anonymous),
      cmocka_unit_test(row_9_a_limit_can_be_required),
      cmocka_unit_test(failed_attempts_are_counted_by_address),
      cmocka_unit_test(a_dry_run_lets_pass_what_it_names),
      cmocka_unit_test(a_veto_takes_away),
      cmocka_unit_test(new_keys_under_a_veto_are_not_called_unknown),
      cmocka_unit_test(guesses_under_a_veto_count),
      cmocka_unit_test(a_damaged_veto_says_nothing_about_a_key),
      cmocka_unit_test(a_client_request_is_charged_once),
      cmocka_unit_test(an_unsaid_method_is_not_guessed),
      cmocka_unit_test(an_unsaid_address_is_in_no_network),
      cmocka_unit_test(a_preflight_counts_for_its_address),
      cmocka_unit_test(what_is_counted_elsewhere_does_not_count_here),
      cmocka_unit_test(a_refused_request_stays_refused),
      cmocka_unit_test(each_location_decides_anew_from_one_recognition),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
