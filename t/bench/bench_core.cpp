// What the steps of a decision cost: user instructions and cycles per call, counted by the processor, and time.
// Built by `ninja bench_core`, run by people; never part of a test, since its numbers depend on the machine.
// Where the processor's counters cannot be read (a container, perf_event_paranoid), it prints the time alone.
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "apikey/authenticator.hpp"
#include "snapshot_fixture.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kRounds = 300'000;
constexpr std::size_t kKeys = 100'000;

// One counter of this process, user space only.
class Counter {
 public:
  explicit Counter(std::uint64_t event) {
    perf_event_attr attributes{};
    attributes.type = PERF_TYPE_HARDWARE;
    attributes.size = sizeof attributes;
    attributes.config = event;
    attributes.exclude_kernel = 1;
    attributes.exclude_hv = 1;
    fd_ = static_cast<int>(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
  }
  ~Counter() {
    if (fd_ >= 0) {
      (void)::close(fd_);
    }
  }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  [[nodiscard]] bool works() const { return fd_ >= 0; }
  [[nodiscard]] std::uint64_t read() const {
    std::uint64_t value = 0;
    return fd_ >= 0 && ::read(fd_, &value, sizeof value) == sizeof value ? value : 0;
  }

 private:
  int fd_ = -1;
};

struct Counters {
  Counter instructions{PERF_COUNT_HW_INSTRUCTIONS};
  Counter cycles{PERF_COUNT_HW_CPU_CYCLES};
};

// Calls `function(i)` many times. What it returns is summed up, so that nothing is optimised away.
template <class Function>
void measure(const Counters& counters, const char* name, Function function) {
  volatile std::uint64_t sink = 0;
  for (std::uint64_t i = 0; i < kRounds / 10; ++i) {
    sink = sink + function(i);
  }
  const std::uint64_t instructions = counters.instructions.read();
  const std::uint64_t cycles = counters.cycles.read();
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < kRounds; ++i) {
    sink = sink + function(i);
  }
  const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
  const auto per_call = [](std::uint64_t total) { return static_cast<double>(total) / kRounds; };
  std::printf("%-44s", name);
  if (counters.instructions.works()) {
    std::printf(" %8.0f instructions", per_call(counters.instructions.read() - instructions));
  }
  if (counters.cycles.works()) {
    std::printf(" %8.0f cycles", per_call(counters.cycles.read() - cycles));
  }
  std::printf(" %8.1f ns\n", time.count() / kRounds);
}

void measure_digest(const Counters& counters) {
  std::string key = "ak_live_0123456789abcdefghijklmnopqrstuv012345";
  const auto vary = [&key](std::uint64_t i) { std::memcpy(key.data() + 8, &i, sizeof i); };
  const DigestMethod plain;
  measure(counters, "digest: SHA-256", [&](std::uint64_t i) {
    vary(i);
    return std::uint64_t{plain(key).bytes[0]};
  });
  DigestMethod peppered;
  const std::array<std::uint8_t, 32> pepper{1, 2, 3};
  if (DigestMethod::with_pepper("bench", pepper, peppered).ok()) {
    measure(counters, "digest: HMAC-SHA-256", [&](std::uint64_t i) {
      vary(i);
      return std::uint64_t{peppered(key).bytes[0]};
    });
  }
}

void measure_snapshot(const Counters& counters, const Snapshot& snapshot, const fixture::Keys& keys) {
  Record record;
  const auto some_key = [&keys](std::uint64_t i) -> const Digest& { return keys[i * 7919 % keys.size()].first; };
  measure(counters, "find: a key of 100,000",
          [&](std::uint64_t i) { return std::uint64_t{snapshot.find(some_key(i), record) == Snapshot::Find::found}; });
  measure(counters, "find: no key", [&](std::uint64_t i) {
    Digest other = some_key(i);
    other.bytes[31] ^= 1U;
    return std::uint64_t{snapshot.find(other, record) == Snapshot::Find::found};
  });

  constexpr std::array<std::uint8_t, 1> methods = {0};
  constexpr std::array<std::string_view, 2> environments = {"live", "test"};
  constexpr std::array<std::string_view, 1> scopes = {"orders:read"};
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, scopes}};
  LocationPolicy policy;
  policy.environments = environments;
  policy.scope_lines = lines;
  RequestFacts facts;
  facts.address = make_address(std::array<std::uint8_t, 4>{10, 0, 0, 1});
  facts.method = kMethodGet;
  Credential credential;
  credential.found = Found::key;
  measure(counters, "decide: without limits", [&](std::uint64_t i) {
    credential.digests[0] = some_key(i);
    Recognition known;
    const Verdict verdict =
        decide(policy, credential, {&snapshot, methods}, facts, {{1'800'000'000}, {1}, {}}, known, nullptr);
    return static_cast<std::uint64_t>(verdict.outcome);
  });
}

struct alignas(128) Line {
  std::array<std::byte, 128> bytes{};
};

void measure_take(const Counters& counters) {
  std::vector<Line> memory(BucketTable::bytes_for(kKeys) / sizeof(Line));
  BucketTable table;
  if (!BucketTable::format(std::as_writable_bytes(std::span(memory)), {1, 2}, table).ok()) {
    return;
  }
  const LimitTables tables{&table, nullptr, nullptr, {}, {}};
  const auto use_of = [&](std::uint8_t number, const Rate& rate, std::uint64_t burst) {
    LimitUse use{};
    use.kind = LimitKind::rate;
    use.cost_number = kNoCost;
    use.subject = table.subject("bench", std::span(&number, 1));
    use.cost = 1;
    use.size = burst;
    use.amount = rate.amount;
    use.period_ns = rate.period_ns;
    return use;
  };
  std::array<LimitUse, 4> uses;
  for (std::uint8_t i = 0; i < uses.size(); ++i) {
    uses[i] = use_of(i, {1'000'000'000, kNsPerSecond}, 1'000'000);
  }
  std::uint64_t now = kNsPerSecond;
  for (const std::size_t count : {1U, 2U, 4U}) {
    const std::string name = "take: " + std::to_string(count) + " limit(s)";
    measure(counters, name.c_str(), [&](std::uint64_t) {
      now += 1000;
      Takings takings;
      return take_limits(tables, std::span(uses).first(count), {{}, {now}, {}}, takings).level.remaining;
    });
  }
  const LimitUse empty = use_of(9, {1, 3600 * kNsPerSecond}, 1);
  measure(counters, "take: 1 limit, refused", [&](std::uint64_t) {
    Takings takings;
    return take_limits(tables, std::span(&empty, 1), {{}, {kNsPerSecond}, {}}, takings).level.reset_ns;
  });
  measure(counters, "subject: name and key family", [&](std::uint64_t i) {
    std::array<std::uint8_t, 13> family{};
    std::memcpy(family.data(), &i, sizeof i);
    return table.subject("default", family);
  });
}

int run() {
  const Counters counters;
  if (!counters.instructions.works()) {
    std::puts("The processor's counters cannot be read here (kernel.perf_event_paranoid?): time only.");
  }
  measure_digest(counters);
  const fixture::TempDir dir;
  fixture::Keys keys;
  publish::MappedFile file;
  Snapshot snapshot;
  const Status opened = file.open(fixture::build(dir, kKeys, &keys));
  if (!opened.ok() || !snapshot.open(file.fd(), file.bytes(), Lookup::index).ok()) {
    (void)std::fprintf(stderr, "bench_core: the snapshot cannot be opened: %s\n", fixture::describe(opened).c_str());
    return 1;
  }
  measure_snapshot(counters, snapshot, keys);
  measure_take(counters);
  return 0;
}

}  // namespace
}  // namespace apikey

int main() { return apikey::run(); }
