// Tests of limits.cpp and limit_gathering.cpp: all or none over rates, quotas and requests in flight, dry run, costs by
// measure, settling and refunds, shares; against a simple exact model in random operations; and eight threads at once.
// Every time is given.
#include "apikey/limit_gathering.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <thread>
#include <vector>

#include "table_fixture.hpp"

#include "cmocka_cpp.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kHour = 3600 * kNsPerSecond;
constexpr std::int64_t kWall = 1'800'000'000;
constexpr std::uint64_t kMono = 7'000'000'000'000;
constexpr SipKey kSeed = {0x0123456789abcdef, 0xfedcba9876543210};

// Tables with room for everybody.
struct TestTables {
  TestTables() {
    const auto clock = []() noexcept { return MonoNs{kMono}; };
    assert_true(BucketTable::format(take(BucketTable::bytes_for(10'000)), kSeed, clock, buckets).ok());
    assert_true(BucketTable::format(take(BucketTable::bytes_for(1'000)), kSeed, clock, client_buckets).ok());
    assert_true(QuotaTable::format(take(QuotaTable::bytes_for(10'000)), kSeed, quotas).ok());
    assert_true(FlightTable::format(take(FlightTable::bytes_for(1'000)), kSeed, flights).ok());
    assert_true(FlightTable::format(take(FlightTable::bytes_for(100)), kSeed, client_flights).ok());
    all = {&buckets, &quotas, &flights, {100, 1}, {}, &client_buckets, &client_flights, {}};
  }
  std::span<std::byte> take(std::size_t size) {
    memory.emplace_back((size + 127) / 128);
    return std::as_writable_bytes(std::span(memory.back())).first(size);
  }
  struct alignas(128) Line {
    std::array<std::byte, 128> bytes{};
  };
  std::deque<std::vector<Line>> memory;
  BucketTable buckets;
  BucketTable client_buckets;
  QuotaTable quotas;
  FlightTable flights;
  FlightTable client_flights;
  LimitTables all;
};

Clocks clocks_at(std::uint64_t seconds) {
  const std::int64_t wall = kWall + static_cast<std::int64_t>(seconds);
  return {{wall}, {kMono + seconds * kNsPerSecond}, {static_cast<std::uint64_t>(wall) * 1'000'000}};
}

std::array<std::uint8_t, 8> id_of(std::uint64_t number) {
  std::array<std::uint8_t, 8> id{};
  std::memcpy(id.data(), &number, id.size());
  return id;
}

LimitUse blank(LimitKind kind, const char* name, std::uint64_t cost) {
  LimitUse use{};
  use.kind = kind;
  use.cost = cost;
  use.name = {name, std::strlen(name)};
  return use;
}

LimitUse rate(const TestTables& tables, std::uint64_t number, std::uint64_t per_hour, std::uint64_t burst,
              std::uint64_t cost = 1) {
  LimitUse use = blank(LimitKind::rate, "rate", cost);
  use.subject = tables.buckets.subject("rate", id_of(number));
  use.amount = per_hour;
  use.period_ns = kHour;
  use.size = burst;
  return use;
}

LimitUse quota(const TestTables& tables, std::uint64_t number, std::uint64_t amount, std::int64_t now,
               std::uint64_t cost = 1) {
  LimitUse use = blank(LimitKind::calendar_quota, "day", cost);
  use.subject = tables.quotas.subject("day", id_of(number));
  use.size = amount;
  use.unit = CalendarUnit::day;
  const Window window = window_at(CalendarUnit::day, {now});
  use.begin = window.begin.value;
  use.end = window.end.value;
  return use;
}

LimitUse concurrency(const TestTables& tables, std::uint64_t number, std::uint64_t most) {
  LimitUse use = blank(LimitKind::concurrency, "concurrency", 1);
  use.subject = tables.flights.subject("concurrency", id_of(number));
  use.size = most;
  return use;
}

// The answer has said what each limit of this measure costs; an empty one: whatever no other cost is for.
void settle(const TestTables& tables, Takings& takings, std::uint64_t cost, std::uint64_t seconds,
            std::string_view measure = {}) {
  const std::array costs = {MeasuredCost{measure, cost, true}};
  settle_costs(tables.all, takings, kMainTaker, costs, clocks_at(seconds));
}

void who_is_refused_by_one_takes_from_none(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 1, 10), quota(tables, 1, 3, kWall), concurrency(tables, 1, 2)};
  Takings first;
  Takings second;
  Takings third;
  assert_true(take_limits(tables.all, uses, clocks_at(0), first).outcome == Outcome::ok);
  const TakeResult tight = take_limits(tables.all, uses, clocks_at(0), second);
  assert_true(tight.outcome == Outcome::ok);
  // No more may be in flight, but that passes: what is told is the quota, of which a third is left.
  assert_int_equal(tight.decided_by, 1);
  assert_int_equal(tight.level.remaining, 1);
  TakeResult refused = take_limits(tables.all, uses, clocks_at(0), third);
  assert_true(refused.outcome == Outcome::concurrency_limited);
  assert_int_equal(third.count, 0);
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 8);
  assert_int_equal(look_at_limit(tables.all, uses[1], clocks_at(0)).remaining, 1);

  release_flights(tables.all, first);
  release_flights(tables.all, first);  // once is enough
  assert_int_equal(look_at_limit(tables.all, uses[2], clocks_at(0)).remaining, 1);
  assert_true(take_limits(tables.all, uses, clocks_at(0), third).outcome == Outcome::ok);
  release_flights(tables.all, second);
  Takings fourth;
  refused = take_limits(tables.all, uses, clocks_at(0), fourth);
  assert_true(refused.outcome == Outcome::quota_exceeded);
  // Until the end of the day: kWall is 08:00:00 UTC.
  assert_int_equal(refused.level.retry_after_ns, 16 * kHour);
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 7);
}

void what_is_told_is_the_refusal_that_lasts_longest(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 2, 1), quota(tables, 1, 1, kWall), rate(tables, 2, 1, 1)};
  Takings takings;
  assert_true(take_limits(tables.all, uses, clocks_at(0), takings).outcome == Outcome::ok);
  Takings again;
  const TakeResult refused = take_limits(tables.all, uses, clocks_at(0), again);
  assert_int_equal(refused.decided_by, 1);
  assert_true(refused.outcome == Outcome::quota_exceeded);
  assert_true(look_at_limits(tables.all, uses, clocks_at(0)).outcome == Outcome::quota_exceeded);
  assert_int_equal(take_limits(tables.all, std::span(uses).first(1), clocks_at(0), again).level.retry_after_ns,
                   kHour / 2);
}

void a_limit_is_taken_once_a_request(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 1, 10), quota(tables, 1, 10, kWall)};
  Takings takings;
  for (int pass = 0; pass < 30; ++pass) {
    const TakeResult result = take_limits(tables.all, uses, clocks_at(0), takings);
    assert_true(result.outcome == Outcome::ok);
    assert_int_equal(result.level.remaining, 9);
  }
  assert_int_equal(takings.count, 2);
}

// The three tables hash alike: one name and one holder give one subject.
void limits_of_one_name_and_different_kinds_are_all_taken(void**) {
  TestTables tables;
  std::array uses = {rate(tables, 1, 1, 10), quota(tables, 1, 10, kWall), concurrency(tables, 1, 2)};
  for (LimitUse& use : uses) {
    use.subject = uses[0].subject;
  }
  Takings first;
  Takings second;
  Takings third;
  assert_true(take_limits(tables.all, uses, clocks_at(0), first).outcome == Outcome::ok);
  assert_int_equal(first.count, uses.size());
  assert_true(take_limits(tables.all, uses, clocks_at(0), second).outcome == Outcome::ok);
  assert_true(take_limits(tables.all, uses, clocks_at(0), third).outcome == Outcome::concurrency_limited);
  // Once each, also when the same request comes again in another order.
  std::swap(uses[0], uses[2]);
  assert_true(take_limits(tables.all, uses, clocks_at(0), first).outcome == Outcome::ok);
  assert_int_equal(first.count, uses.size());
  assert_int_equal(look_at_limit(tables.all, uses[2], clocks_at(0)).remaining, 8);
  // A quota of the other kind is counted in the same slot: it is not taken a second time.
  assert_true(first.find(LimitKind::rolling_quota, uses[0].subject) ==
              first.find(LimitKind::calendar_quota, uses[0].subject));
}

void a_limit_in_dry_run_counts_and_refuses_nobody(void**) {
  TestTables tables;
  std::array uses = {rate(tables, 1, 1, 2), rate(tables, 2, 1, 9)};
  uses[0].is_dry_run = true;
  for (std::uint64_t i = 0; i < 9; ++i) {
    Takings takings;
    const TakeResult result = take_limits(tables.all, uses, clocks_at(0), takings);
    assert_true(result.outcome == Outcome::ok);
    assert_int_equal(result.decided_by, 1);
    assert_int_equal(result.level.remaining, 8 - i);
    assert_true(result.dry_outcome == (i < 2 ? Outcome::ok : Outcome::rate_limited));
  }
  Takings takings;
  assert_true(take_limits(tables.all, std::span(uses).first(1), clocks_at(0), takings).outcome == Outcome::ok);
  assert_false(take_limits(tables.all, std::span(uses).first(1), clocks_at(0), takings).has_limit);
}

void a_table_without_room_is_not_a_limit_that_is_used_up(void**) {
  TestTables tables;
  const QuotaTable nothing;
  LimitTables all = tables.all;
  all.quotas = &nothing;
  const std::array uses = {rate(tables, 1, 1, 10), quota(tables, 1, 3, kWall)};
  Takings takings;
  assert_true(take_limits(all, uses, clocks_at(0), takings).outcome == Outcome::unavailable);
  assert_int_equal(look_at_limit(all, uses[0], clocks_at(0)).remaining, 10);
  const std::vector<LimitUse> many(kMaxUses + 1, uses[0]);
  assert_true(take_limits(tables.all, many, clocks_at(0), takings).outcome == Outcome::unavailable);
}

void costs_are_settled_when_they_are_known(void**) {
  TestTables tables;
  std::array uses = {rate(tables, 1, 3600, 100, 10), quota(tables, 1, 1000, kWall, 10), rate(tables, 2, 3600, 50)};
  uses[2].measure = {"calls", 5};
  const auto left = [&](std::size_t i, std::uint64_t seconds) {
    return look_at_limit(tables.all, uses[i], clocks_at(seconds)).remaining;
  };
  Takings more;
  assert_true(take_limits(tables.all, uses, clocks_at(0), more).outcome == Outcome::ok);
  settle(tables, more, 300, 0, "requests");
  assert_int_equal(left(0, 0), 0);
  assert_int_equal(left(1, 0), 700);
  assert_int_equal(left(2, 0), 49);
  // 200 below nothing: that long until there is one again.
  assert_int_equal(left(0, 200), 0);
  assert_int_equal(left(0, 201), 1);
  Takings less;
  assert_true(take_limits(tables.all, uses, clocks_at(300), less).outcome == Outcome::ok);
  settle(tables, less, 4, 300, "requests");
  assert_int_equal(left(0, 300), 96);
  assert_int_equal(left(1, 300), 696);
  settle(tables, less, 5000, 300, "tokens");  // which none of them counts
  assert_int_equal(left(2, 300), 49);
}

// The table in docs/limits.md.
void the_documented_example(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 100 * 3600, 1000, 200)};
  const auto left = [&](std::uint64_t seconds) {
    return look_at_limit(tables.all, uses[0], clocks_at(seconds)).remaining;
  };
  Takings a;
  Takings b;
  Takings c;
  assert_true(take_limits(tables.all, uses, clocks_at(0), a).outcome == Outcome::ok);
  assert_int_equal(left(0), 800);
  assert_true(take_limits(tables.all, uses, clocks_at(0), b).outcome == Outcome::ok);
  assert_int_equal(left(0), 600);
  settle(tables, a, 50, 1);
  assert_int_equal(left(1), 800);
  settle(tables, b, 1500, 2);
  assert_int_equal(left(2), 0);
  const TakeResult refused = take_limits(tables.all, uses, clocks_at(3), c);
  assert_true(refused.outcome == Outcome::rate_limited);
  assert_int_equal(refused.level.retry_after_ns, 5'000'000'000);
  assert_true(take_limits(tables.all, uses, clocks_at(8), c).outcome == Outcome::ok);
  assert_int_equal(left(8), 0);
}

// Wherever a limit was taken: what settles it is the cost of its measure, not a line of the same number.
void a_limit_is_settled_by_the_cost_of_its_measure(void**) {
  TestTables tables;
  std::array uses = {rate(tables, 1, 1, 1000), rate(tables, 2, 1, 1000, 100), rate(tables, 3, 1, 1000)};
  uses[0].measure = {"calls", 5};
  uses[1].measure = {"tokens", 6};
  uses[2].measure = {"images", 6};
  Takings takings;
  assert_true(take_limits(tables.all, uses, clocks_at(0), takings).outcome == Outcome::ok);
  const std::array later = {MeasuredCost{"tokens", 400, true}, MeasuredCost{"calls", 7, false},
                            MeasuredCost{{}, 3, true}};
  settle_costs(tables.all, takings, kMainTaker, later, clocks_at(0));
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 999);
  assert_int_equal(look_at_limit(tables.all, uses[1], clocks_at(0)).remaining, 600);
  assert_int_equal(look_at_limit(tables.all, uses[2], clocks_at(0)).remaining, 997);
}

void a_subrequest_takes_what_its_request_has_not_taken(void**) {
  TestTables tables;
  const std::array mine = {rate(tables, 1, 1, 1000, 600), concurrency(tables, 1, 1)};
  const std::array its = {rate(tables, 1, 1, 1000), rate(tables, 2, 1, 10), concurrency(tables, 1, 1)};
  const auto left = [&](const LimitUse& use) { return look_at_limit(tables.all, use, clocks_at(0)).remaining; };
  Takings takings;
  assert_true(take_limits(tables.all, mine, clocks_at(0), takings).outcome == Outcome::ok);
  takings.taker = 1;
  assert_true(take_limits(tables.all, its, clocks_at(0), takings).outcome == Outcome::ok);
  assert_int_equal(left(mine[0]), 400);
  assert_int_equal(left(its[1]), 9);
  const std::array costs = {MeasuredCost{{}, 5, true}};
  settle_costs(tables.all, takings, 1, costs, clocks_at(0));
  assert_int_equal(left(mine[0]), 400);
  assert_int_equal(left(its[1]), 5);
  refund_costs(tables.all, takings, kMainTaker, clocks_at(0));
  assert_int_equal(left(mine[0]), 1000);
  assert_int_equal(left(its[1]), 5);
  release_flights(tables.all, takings);
}

void a_request_takes_over_what_a_question_took_before(void**) {
  TestTables tables;
  const std::array question = {rate(tables, 1, 1, 1000), quota(tables, 1, 10, kWall), rate(tables, 2, 1, 10)};
  std::array mine = {rate(tables, 1, 1, 1000, 600), quota(tables, 1, 10, kWall)};
  const auto left = [&](const LimitUse& use) { return look_at_limit(tables.all, use, clocks_at(0)).remaining; };
  Takings takings;
  takings.taker = 1;
  assert_true(take_limits(tables.all, question, clocks_at(0), takings).outcome == Outcome::ok);
  takings.taker = kMainTaker;
  assert_true(take_limits(tables.all, mine, clocks_at(0), takings).outcome == Outcome::ok);
  assert_int_equal(left(mine[0]), 400);
  assert_int_equal(left(mine[1]), 9);
  assert_int_equal(left(question[2]), 9);
  assert_int_equal(takings.count, 3);
  // Refused, the request gives back what the question took too.
  mine[0].cost = 5000;
  refund_costs(tables.all, takings, 1, clocks_at(0));
  assert_int_equal(left(mine[0]), 1000);
  assert_int_equal(left(mine[1]), 10);
  assert_int_equal(left(question[2]), 10);
}

void a_refund_gives_everything_back_but_the_flight(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 1, 10, 7), quota(tables, 1, 10, kWall, 7), concurrency(tables, 1, 5)};
  Takings takings;
  assert_true(take_limits(tables.all, uses, clocks_at(0), takings).outcome == Outcome::ok);
  refund_costs(tables.all, takings, kMainTaker, clocks_at(0));
  refund_costs(tables.all, takings, kMainTaker, clocks_at(0));
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 10);
  assert_int_equal(look_at_limit(tables.all, uses[1], clocks_at(0)).remaining, 10);
  assert_int_equal(look_at_limit(tables.all, uses[2], clocks_at(0)).remaining, 4);
}

void a_cost_of_nothing_is_free(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 1, 2, 0), quota(tables, 1, 2, kWall, 0)};
  for (int i = 0; i < 10; ++i) {
    Takings takings;
    const TakeResult result = take_limits(tables.all, uses, clocks_at(0), takings);
    assert_true(result.outcome == Outcome::ok);
    assert_int_equal(result.level.remaining, 2);
  }
}

void what_a_limit_measures_is_in_its_name(void**) {
  assert_true(measure_of("tokens") == "tokens");
  assert_true(measure_of("tokens.month") == "tokens");
  for (const char* name : {"rate", "day", "month", "owner", "owner.day", "/orders", "@fallback", "server"}) {
    assert_true(measure_of(name).empty());
  }
  TestTables tables;
  const std::array costs = {MeasuredCost{"tokens", 500}, MeasuredCost{{}, 3}};
  const auto cost_of = [&](const char* name, LimitKind kind = LimitKind::rate) {
    LocationLimit limit;
    limit.kind = kind;
    limit.rate = {1, kHour};
    limit.burst = 7;
    limit.name = name;
    return location_use(limit, 1, false, tables.all, costs);
  };
  assert_int_equal(cost_of("tokens.month").cost, 500);
  assert_int_equal(cost_of("rate").cost, 3);
  assert_int_equal(cost_of("images").cost, 3);
  LocationLimit unnamed;
  unnamed.name = "tokens";  // a location's text, which may be anything
  unnamed.place = 1;
  assert_int_equal(location_use(unnamed, 1, false, tables.all, costs).cost, 3);
  assert_int_equal(cost_of("tokens", LimitKind::concurrency).cost, 1);
}

// Which limits may be overdrawn does not depend on the location that asks.
void a_limit_may_overdraw_where_any_location_settles_its_measure(void**) {
  TestTables tables;
  const auto may_overdraw = [&](const char* name, LimitKind kind = LimitKind::rate) {
    LocationLimit limit;
    limit.kind = kind;
    limit.rate = {1, kHour};
    limit.burst = 7;
    limit.name = name;
    return location_use(limit, 1, false, tables.all, {}).may_overdraw;
  };
  assert_false(may_overdraw("tokens") || may_overdraw("/orders"));
  constexpr std::array<std::string_view, 1> tokens = {"tokens"};
  tables.all.settled_measures = tokens;
  assert_true(may_overdraw("tokens") && may_overdraw("tokens.month"));
  assert_false(may_overdraw("images") || may_overdraw("/orders") || may_overdraw("rate"));
  assert_false(may_overdraw("tokens", LimitKind::concurrency));
  constexpr std::array<std::string_view, 1> requests = {"requests"};
  tables.all.settled_measures = requests;
  assert_true(may_overdraw("/orders") && may_overdraw("rate"));
  assert_false(may_overdraw("tokens"));
  constexpr std::array<std::string_view, 1> all = {""};
  tables.all.settled_measures = all;
  assert_true(may_overdraw("tokens") && may_overdraw("/orders") && may_overdraw("rate"));
}

// Rates and requests in flight: whatever is done with the one, at its beginning, in between and at its end, the other
// table does not notice.
void subjects_that_clients_choose_are_in_tables_of_their_own(void**) {
  TestTables tables;
  std::array uses = {rate(tables, 1, 1, 10, 2), concurrency(tables, 1, 3)};
  for (LimitUse& use : uses) {
    use.is_client_chosen = true;
  }
  const auto used = [&](const BucketTable& table) { return table.usage({kMono}).used; };
  Takings takings;
  assert_true(take_limits(tables.all, uses, clocks_at(0), takings).outcome == Outcome::ok);
  assert_int_equal(used(tables.client_buckets), 1);
  assert_int_equal(tables.client_flights.usage().in_flight, 1);
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 8);
  assert_int_equal(look_at_limit(tables.all, uses[1], clocks_at(0)).remaining, 2);
  settle_cost(tables.all, *takings.find(LimitKind::rate, uses[0].subject), 5, clocks_at(0));
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 5);
  settle_cost(tables.all, *takings.find(LimitKind::rate, uses[0].subject), 3, clocks_at(0));
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 7);
  release_flights(tables.all, takings);
  assert_int_equal(tables.client_flights.usage().in_flight, 0);
  Takings refunded;
  assert_true(take_limits(tables.all, uses, clocks_at(0), refunded).outcome == Outcome::ok);
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 5);
  refund_costs(tables.all, refunded, kMainTaker, clocks_at(0));
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 7);
  release_flights(tables.all, refunded);
  assert_int_equal(used(tables.buckets), 0);
  assert_int_equal(tables.flights.usage().leases, tables.flights.usage().slots * 4);
  // Nor does it when there is no room for more of the one.
  const std::uint64_t room = tables.client_flights.usage().leases;
  std::vector<Takings> held(room + 1);
  TakeResult last;
  for (std::uint64_t n = 0; n <= room && last.outcome == Outcome::ok; ++n) {
    LimitUse use = concurrency(tables, n, 1);
    use.is_client_chosen = true;
    last = take_limits(tables.all, {&use, 1}, clocks_at(0), held[n]);
  }
  assert_true(last.outcome == Outcome::unavailable);
  Takings another;
  const LimitUse of_key = concurrency(tables, 1, 1);
  assert_true(take_limits(tables.all, {&of_key, 1}, clocks_at(0), another).outcome == Outcome::ok);
}

// What is owed beyond the burst, be it less than a whole period's worth, is still there when the bucket had to make
// room.
void a_settled_cost_beyond_the_burst_outlives_the_bucket(void**) {
  TestTables tables;
  BucketTable one_set;
  const auto clock = []() noexcept { return MonoNs{kMono}; };
  assert_true(BucketTable::format(tables.take(BucketTable::bytes_for(1)), kSeed, clock, one_set).ok());
  tables.all.buckets = &one_set;
  LimitUse use = rate(tables, 1, 6, 3);
  use.may_overdraw = true;
  Takings takings;
  assert_true(take_limits(tables.all, {&use, 1}, clocks_at(0), takings).outcome == Outcome::ok);
  settle_cost(tables.all, *takings.find(LimitKind::rate, use.subject), 5, clocks_at(0));
  for (std::uint64_t n = 100; n < 100 + 2 * BucketTable::kSlotsPerSet; ++n) {
    Takings others;
    const LimitUse deep = rate(tables, n, 1, 9, 9);
    static_cast<void>(take_limits(tables.all, {&deep, 1}, clocks_at(0), others));
  }
  assert_true(one_set.usage({kMono}).forced_evictions > BucketTable::kSlotsPerSet);
  Takings again;
  const std::uint64_t wait = take_limits(tables.all, {&use, 1}, clocks_at(0), again).level.retry_after_ns;
  assert_true(wait >= 3 * kHour / 6 && wait < 3 * kHour / 6 + 256);
}

void a_share_is_a_part_of_every_limit(void**) {
  TestTables tables;
  LocationLimit limit;
  limit.rate = {100, kNsPerSecond};
  limit.burst = 50;
  limit.name = "x";
  LimitTables third = tables.all;
  third.share = {1, 3};
  const LimitUse use = location_use(limit, 1, false, third, {});
  assert_int_equal(use.size, 16);
  assert_int_equal(use.amount, 100);
  assert_int_equal(use.period_ns, 3 * kNsPerSecond);
  limit.burst = 1;
  assert_int_equal(location_use(limit, 1, false, third, {}).size, 1);
}

// Random requests over many keys, each with a rate, a quota and a concurrency, ended in any order, settled up and down
// or refunded, while days pass: against a model that keeps plain numbers.
class Model {
 public:
  struct Request {
    std::uint64_t key = 0;
    std::uint64_t cost = 0;
    std::int64_t day = 0;
    Takings takings;
  };

  explicit Model(std::uint64_t seed) : random_(seed) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      seconds_ += random_() % 1500;
      if (open_.empty() || random_() % 2 == 0) {
        begin();
      } else {
        end();
      }
    }
    assert_true(admitted_ > static_cast<std::uint64_t>(steps) / 8);
    assert_true(refused_ > static_cast<std::uint64_t>(steps) / 20);
  }

 private:
  static constexpr std::uint64_t kBurst = 40;
  static constexpr std::uint64_t kDay = 90;
  static constexpr std::uint64_t kAtOnce = 3;
  static constexpr std::uint64_t kPerHour = 6;

  struct Key {
    std::uint64_t arrival = 0;  // in nanoseconds
    std::map<std::int64_t, std::int64_t> used;
    std::uint64_t in_flight = 0;
  };

  [[nodiscard]] std::uint64_t now() const { return kMono + seconds_ * kNsPerSecond; }
  [[nodiscard]] std::int64_t day() const { return (kWall + static_cast<std::int64_t>(seconds_)) / 86'400; }
  static constexpr std::uint64_t price(std::uint64_t cost) { return cost * (kHour / kPerHour); }

  std::array<LimitUse, 3> uses(std::uint64_t key, std::uint64_t cost) const {
    std::array<LimitUse, 3> uses = {rate(tables_, key, kPerHour, kBurst, cost),
                                    quota(tables_, key, kDay, kWall + static_cast<std::int64_t>(seconds_), cost),
                                    concurrency(tables_, key, kAtOnce)};
    return uses;
  }

  void begin() {
    const std::uint64_t number = random_() % 6;
    const std::uint64_t cost = random_() % 12;
    Key& key = keys_[number];
    Request request{number, cost, day(), {}};
    const std::uint64_t after = std::max(key.arrival, now()) + price(cost);
    const bool rate_passes = cost == 0 || after <= now() + price(kBurst);
    const bool quota_passes =
        cost == 0 || key.used[day()] + static_cast<std::int64_t>(cost) <= static_cast<std::int64_t>(kDay);
    const bool passes = rate_passes && quota_passes && key.in_flight < kAtOnce;
    const TakeResult result = take_limits(tables_.all, uses(number, cost), clocks_at(seconds_), request.takings);
    assert_int_equal(result.outcome == Outcome::ok, passes);
    if (passes) {
      key.arrival = cost == 0 ? key.arrival : after;
      open_.push_back(request);
      key.used[day()] += static_cast<std::int64_t>(cost);
      key.in_flight += 1;
      ++admitted_;
    } else {
      ++refused_;
    }
    check(number);
  }

  void end() {
    const auto which = open_.begin() + static_cast<std::ptrdiff_t>(random_() % open_.size());
    Request request = *which;
    open_.erase(which);
    Key& key = keys_[request.key];
    // What the limits will say is checked against: more is owed, less is given back, never more than is still owed.
    const std::uint64_t actual = random_() % 3 == 0 ? 0 : random_() % 30;
    std::uint64_t taken_until = 0;
    for (const TakenLimit& taken : std::span(request.takings.limits).first(request.takings.count)) {
      taken_until = taken.kind == LimitKind::rate ? taken.taken_ns : taken_until;
    }
    if (actual > request.cost) {
      key.arrival = std::max(key.arrival, now()) + price(actual - request.cost);
      key.used[day()] += static_cast<std::int64_t>(actual - request.cost);
    } else {
      const std::uint64_t back = price(request.cost - actual);
      key.arrival -= std::min(back, taken_until > now() ? taken_until - now() : 0);
      if (request.day == day()) {
        key.used[day()] -= static_cast<std::int64_t>(request.cost - actual);
      }
    }
    if (actual == 0) {
      refund_costs(tables_.all, request.takings, kMainTaker, clocks_at(seconds_));
    } else {
      settle(tables_, request.takings, actual, seconds_);
    }
    release_flights(tables_.all, request.takings);
    key.in_flight -= 1;
    check(request.key);
  }

  void check(std::uint64_t number) {
    Key& key = keys_[number];
    const auto seen = uses(number, 0);
    const std::uint64_t owed = key.arrival > now() ? key.arrival - now() : 0;
    const std::uint64_t left = owed < price(kBurst) ? (price(kBurst) - owed) / price(1) : 0;
    assert_int_equal(look_at_limit(tables_.all, seen[0], clocks_at(seconds_)).remaining, left);
    const std::int64_t rest = static_cast<std::int64_t>(kDay) - key.used[day()];
    assert_int_equal(look_at_limit(tables_.all, seen[1], clocks_at(seconds_)).remaining,
                     std::max<std::int64_t>(rest, 0));
    assert_int_equal(look_at_limit(tables_.all, seen[2], clocks_at(seconds_)).remaining, kAtOnce - key.in_flight);
  }

  TestTables tables_;
  Random random_;
  std::uint64_t seconds_ = 0;
  std::map<std::uint64_t, Key> keys_;
  std::deque<Request> open_;
  std::uint64_t admitted_ = 0;
  std::uint64_t refused_ = 0;
};

void a_simple_model_agrees(void**) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Model(seed).run(3000);
  }
}

// No time passes: of the narrow limit exactly as many are admitted as it has, and the losers leave nothing behind.
void eight_threads_take_all_or_none(void**) {
  TestTables tables;
  const std::array uses = {rate(tables, 1, 1, 4000), quota(tables, 1, 3000, kWall), rate(tables, 2, 1, 9000),
                           concurrency(tables, 1, 5)};
  std::atomic<std::uint64_t> admitted{0};
  std::atomic<std::int64_t> in_flight{0};
  std::atomic<bool> is_crowded{false};
  in_threads([&](std::size_t thread) {
    LimitTables mine = tables.all;
    mine.holder = {100 + static_cast<std::uint32_t>(thread), 1};
    for (int n = 0; n < 3000; ++n) {
      Takings takings;
      if (take_limits(mine, uses, clocks_at(0), takings).outcome != Outcome::ok) {
        continue;
      }
      is_crowded = is_crowded || in_flight.fetch_add(1) >= 5;
      if (n % 3 == 0) {
        refund_costs(mine, takings, kMainTaker, clocks_at(0));
      } else {
        admitted.fetch_add(1);
      }
      in_flight.fetch_sub(1);
      release_flights(mine, takings);
    }
  });
  assert_false(is_crowded);
  assert_true(admitted <= 3000 && admitted > 0);
  assert_int_equal(look_at_limit(tables.all, uses[0], clocks_at(0)).remaining, 4000 - admitted);
  assert_int_equal(look_at_limit(tables.all, uses[1], clocks_at(0)).remaining, 3000 - admitted);
  assert_int_equal(look_at_limit(tables.all, uses[2], clocks_at(0)).remaining, 9000 - admitted);
  assert_int_equal(look_at_limit(tables.all, uses[3], clocks_at(0)).remaining, 5);
}

}  // namespace
}  // namespace apikey

int main() {
  using namespace apikey;
  const CMUnitTest tests[] = {
      cmocka_unit_test(who_is_refused_by_one_takes_from_none),
      cmocka_unit_test(what_is_told_is_the_refusal_that_lasts_longest),
      cmocka_unit_test(a_limit_is_taken_once_a_request),
      cmocka_unit_test(limits_of_one_name_and_different_kinds_are_all_taken),
      cmocka_unit_test(a_limit_in_dry_run_counts_and_refuses_nobody),
      cmocka_unit_test(a_table_without_room_is_not_a_limit_that_is_used_up),
      cmocka_unit_test(costs_are_settled_when_they_are_known),
      cmocka_unit_test(the_documented_example),
      cmocka_unit_test(a_limit_is_settled_by_the_cost_of_its_measure),
      cmocka_unit_test(a_subrequest_takes_what_its_request_has_not_taken),
      cmocka_unit_test(a_request_takes_over_what_a_question_took_before),
      cmocka_unit_test(a_refund_gives_everything_back_but_the_flight),
      cmocka_unit_test(a_cost_of_nothing_is_free),
      cmocka_unit_test(what_a_limit_measures_is_in_its_name),
      cmocka_unit_test(a_limit_may_overdraw_where_any_location_settles_its_measure),
      cmocka_unit_test(subjects_that_clients_choose_are_in_tables_of_their_own),
      cmocka_unit_test(a_settled_cost_beyond_the_burst_outlives_the_bucket),
      cmocka_unit_test(a_share_is_a_part_of_every_limit),
      cmocka_unit_test(a_simple_model_agrees),
      cmocka_unit_test(eight_threads_take_all_or_none),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
