// What limits cost in the core: finding those that apply to a key, and taking from all of them. For each kind of limit
// and 1, 2 and 4 of them.
//   bench_limits                 a table: instructions, cycles, time
//   bench_limits PIECE ROUNDS    that piece alone, so many times: for callgrind (count_instructions.py)
//   bench_limits --list          the pieces
// Built by `ninja bench_limits`; never part of a test, since its numbers depend on the machine.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "apikey/limit_gathering.hpp"
#include "measure.hpp"
#include "snapshot_fixture.hpp"

namespace apikey {
namespace {

constexpr std::size_t kKeys = 256;  // many enough to stand in all places of their sets
constexpr std::size_t kSlots = 20'000;
constexpr std::int64_t kWall = 1'800'000'000;
constexpr std::array<std::string_view, 6> kKinds = {"none", "rate", "calendar", "rolling", "concurrency", "mixed"};
constexpr std::array<std::size_t, 3> kCounts = {1, 2, 4};

struct alignas(128) Line {
  std::array<std::byte, 128> bytes{};
};

// Memory for one table.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : lines_(bytes / sizeof(Line) + 1) {}
  [[nodiscard]] std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(lines_)); }

 private:
  std::vector<Line> lines_;
};

// A limit that never refuses: 10^9 tokens a second, and 1000 ns between two takes.
publish::Limit make_limit(std::string_view kind, std::size_t number) {
  publish::Limit limit;
  limit.name = std::string(kind) + std::to_string(number);
  limit.amount = 1'000'000'000;
  if (kind == "rate") {
    limit.period_ns = kNsPerSecond;
    limit.burst = 1'000'000;
  } else if (kind == "calendar") {
    limit.kind = LimitKind::calendar_quota;
    limit.unit = number % 2 == 0 ? CalendarUnit::month : CalendarUnit::day;
  } else if (kind == "rolling") {
    limit.kind = LimitKind::rolling_quota;
    limit.period_ns = 86'400 * kNsPerSecond;
  } else {
    limit.kind = LimitKind::concurrency;
    limit.amount = kMaxConcurrency;
  }
  return limit;
}

std::vector<publish::Limit> make_limits(std::string_view kind, std::size_t count) {
  constexpr std::array<std::string_view, 4> mixture = {"rate", "calendar", "concurrency", "calendar"};
  std::vector<publish::Limit> limits;
  for (std::size_t i = 0; i < count; ++i) {
    limits.push_back(make_limit(kind == "mixed" ? mixture[i] : kind, i));
  }
  return limits;
}

struct Piece {
  std::string step;  // gather or take
  std::string kind;
  std::size_t count = 0;
};

std::vector<Piece> all_pieces() {
  std::vector<Piece> pieces = {{"gather", "none", 0}};
  for (const std::string_view kind : kKinds) {
    for (const std::size_t count : kCounts) {
      for (const char* step : {"gather", "take"}) {
        if (kind != "none") {
          pieces.push_back({step, std::string(kind), count});
        }
      }
    }
  }
  return pieces;
}

std::string name_of(const Piece& piece) { return piece.step + ":" + piece.kind + ":" + std::to_string(piece.count); }

// A snapshot of kKeys keys whose plan has these limits, and the tables they are taken from.
class Scene {
 public:
  explicit Scene(const std::vector<publish::Limit>& limits)
      : bucket_memory_(BucketTable::bytes_for(kSlots)),
        quota_memory_(QuotaTable::bytes_for(kSlots)),
        flight_memory_(FlightTable::bytes_for(kSlots)) {
    publish::SnapshotWriter writer;
    publish::FinishedSnapshot finished;
    Status status = writer.open(dir_.path());
    const auto digests = fill(writer, limits);
    for (std::size_t i = 0; i < kKeys && status.ok(); ++i) {
      status = writer.key(digests[i].first, digests[i].second);
    }
    is_ready_ = status.ok() && writer.finish(fixture::meta_of(1), finished).ok() && file_.open(finished.path).ok() &&
                snapshot_.open(file_.fd(), file_.bytes(), Lookup::index).ok() && read_keys(digests) && format();
  }
  [[nodiscard]] bool is_ready() const { return is_ready_; }

  std::uint64_t gather(std::uint64_t i) {
    std::array<LimitUse, kMaxUses> uses;
    return gather_into(i, uses);
  }
  std::uint64_t take(std::uint64_t i, std::size_t limit_count) {
    const std::uint64_t now = kNsPerSecond + i * 1000;
    const Clocks clocks{{kWall}, {now}, {static_cast<std::uint64_t>(kWall) * 1'000'000 + i}};
    Takings takings;
    const TakeResult result = take_limits(tables_, std::span(uses_[i % kKeys]).first(limit_count), clocks, takings);
    release_flights(tables_, takings);
    return result.outcome == Outcome::ok ? result.level.remaining : std::uint64_t{0};
  }
  // All places are taken before anything is measured. RETURNS: false when a limit refuses.
  bool warm_up(std::size_t limit_count) {
    for (std::size_t i = 0; i < kKeys; ++i) {
      if (gather_into(i, uses_[i]) != limit_count || (limit_count != 0 && take(i, limit_count) == 0)) {
        return false;
      }
    }
    return true;
  }

 private:
  static fixture::Keys fill(publish::SnapshotWriter& writer, const std::vector<publish::Limit>& limits) {
    fixture::Keys keys = fixture::fill(writer, kKeys);
    const std::uint32_t plan = writer.plan("bench", limits);
    const std::uint32_t owner = writer.owner({.name = "bench", .id = {std::byte{1}}});
    for (auto& [digest, record] : keys) {
      record.plan = plan;
      record.owner = owner;
      record.limits = 0;
    }
    return keys;
  }
  bool read_keys(const fixture::Keys& keys) {
    for (std::size_t i = 0; i < kKeys; ++i) {
      if (snapshot_.find(keys[i].first, records_[i]) != Snapshot::Find::found ||
          !snapshot_.owner(records_[i].owner, owner_)) {
        return false;
      }
    }
    return true;
  }
  bool format() {
    const auto clock = []() noexcept { return MonoNs{kNsPerSecond}; };
    tables_ = {&buckets_, &quotas_,  &flights_, {static_cast<std::uint32_t>(::getpid()), 1},
               {},        &buckets_, &flights_, {}};
    return BucketTable::format(bucket_memory_.bytes(), {1, 2}, clock, buckets_).ok() &&
           QuotaTable::format(quota_memory_.bytes(), {1, 2}, quotas_).ok() &&
           FlightTable::format(flight_memory_.bytes(), {1, 2}, flights_).ok();
  }
  std::size_t gather_into(std::uint64_t i, std::span<LimitUse> uses) {
    std::size_t count = 0;
    return gather_key_limits(snapshot_, records_[i % kKeys], owner_, tables_, {}, {kWall}, uses, count) ? count : 0;
  }

  fixture::TempDir dir_;
  publish::MappedFile file_;
  Snapshot snapshot_;
  Memory bucket_memory_;
  Memory quota_memory_;
  Memory flight_memory_;
  BucketTable buckets_;
  QuotaTable quotas_;
  FlightTable flights_;
  LimitTables tables_;
  std::array<Record, kKeys> records_;
  OwnerRow owner_;
  std::array<std::array<LimitUse, kMaxUses>, kKeys> uses_;
  bool is_ready_ = false;
};

// Hands `with` the function to repeat.
template <class With>
bool run_piece(const Piece& piece, With with) {
  const auto scene = std::make_unique<Scene>(make_limits(piece.kind, piece.count));
  if (!scene->is_ready() || !scene->warm_up(piece.count)) {
    (void)std::fprintf(stderr, "bench_limits: %s cannot be set up\n", name_of(piece).c_str());
    return false;
  }
  if (piece.step == "gather") {
    with([&](std::uint64_t i) { return scene->gather(i); });
  } else {
    with([&](std::uint64_t i) { return scene->take(kKeys + i, piece.count); });
  }
  return true;
}

int run_all() {
  const bench::Counters counters;
  bench::say_what_is_counted(counters);
  for (const Piece& piece : all_pieces()) {
    const auto with = [&](auto function) { bench::measure(counters, name_of(piece).c_str(), function); };
    if (!run_piece(piece, with)) {
      return 1;
    }
  }
  return 0;
}

int run_one(std::string_view name, std::uint64_t rounds) {
  for (const Piece& piece : all_pieces()) {
    if (name_of(piece) == name) {
      return run_piece(piece, [&](auto function) { bench::repeat(rounds, function); }) ? 0 : 1;
    }
  }
  (void)std::fprintf(stderr, "bench_limits: there is no such piece; --list shows them\n");
  return 2;
}

int run(std::span<char*> arguments) {
  if (arguments.size() == 2 && std::string_view(arguments[1]) == "--list") {
    for (const Piece& piece : all_pieces()) {
      std::puts(name_of(piece).c_str());
    }
    return 0;
  }
  if (arguments.size() == 3) {
    return run_one(arguments[1], std::strtoull(arguments[2], nullptr, 10));
  }
  return run_all();
}

}  // namespace
}  // namespace apikey

int main(int argc, char** argv) { return apikey::run({argv, static_cast<std::size_t>(argc)}); }
