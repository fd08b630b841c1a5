// The table of token buckets in shared memory: layout, and finding the set of a subject.
// Called by limits.cpp in every worker, and by the master when a zone is made or adopted.
// The steps inside a set are those of bucket_set.hpp. Never waits: after kMaxRounds lost races a request is refused.
#include "apikey/bucket_table.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

#include "apikey/bucket_set.hpp"
#include "apikey/wide_word.hpp"

namespace apikey {

namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kMagic = 0x3130544b43554241;  // "ABUCKT01" in memory
constexpr unsigned kMaxRounds = 1024;
constexpr std::uint64_t kBusyRetryNs = 100'000'000;
constexpr std::uint64_t kClaimMask = 0xff;  // of overdraft_and_claims; the rest is the second floor

}  // namespace

struct alignas(128) BucketTable::Header {
  std::atomic<std::uint64_t> magic{0};
  std::uint64_t layout = kLayout;
  std::uint64_t set_count = 0;
  SipKey seed{};
  // Away from what every request reads.
  alignas(128) std::atomic<std::uint64_t> forced_evictions{0};
};

struct alignas(128) BucketTable::Set {
  std::atomic<std::uint64_t> floor_ns{0};
  std::atomic<std::uint64_t> overdraft_and_claims{0};
  std::array<WideWord, kSlotsPerSet> slots;
};

namespace {

// The shared set as the steps of bucket_set.hpp see it.
template <class Set, class Header>
class SharedSet {
 public:
  SharedSet(Set& set, Header& header, BucketTable::Clock clock) noexcept : set_(set), header_(header), clock_(clock) {}
  [[nodiscard]] std::size_t size() const noexcept { return set_.slots.size(); }
  [[nodiscard]] bool holds(std::size_t i, std::uint64_t tag) const noexcept { return tag_of(identity(i)) == tag; }
  [[nodiscard]] std::uint64_t identity(std::size_t i) const noexcept { return set_.slots[i].low(); }
  [[nodiscard]] std::uint64_t arrival(std::size_t i) const noexcept { return set_.slots[i].high(); }
  bool swap(std::size_t i, const WidePair& expected, const WidePair& desired) noexcept {
    return set_.slots[i].swap(expected, desired);
  }
  [[nodiscard]] std::uint64_t floor() const noexcept { return set_.floor_ns.load(std::memory_order_acquire); }
  void raise_floor(std::uint64_t ns) noexcept {
    std::uint64_t old = floor();
    while (old < ns && !set_.floor_ns.compare_exchange_weak(old, ns)) {
    }
  }
  [[nodiscard]] std::uint64_t overdraft_floor() const noexcept {
    return set_.overdraft_and_claims.load(std::memory_order_acquire) & ~kClaimMask;
  }
  void raise_overdraft_floor(std::uint64_t ns) noexcept {
    const std::uint64_t rounded = (ns + kClaimMask) & ~kClaimMask;
    std::uint64_t old = set_.overdraft_and_claims.load(std::memory_order_acquire);
    while ((old & ~kClaimMask) < rounded &&
           !set_.overdraft_and_claims.compare_exchange_weak(old, rounded | (old & kClaimMask))) {
    }
  }
  std::uint64_t next_claim() noexcept {
    std::uint64_t old = set_.overdraft_and_claims.load(std::memory_order_relaxed);
    while (!set_.overdraft_and_claims.compare_exchange_weak(old, (old & ~kClaimMask) | ((old + 1) & kClaimMask))) {
    }
    return old & kClaimMask;
  }
  void count_eviction() noexcept { header_.forced_evictions.fetch_add(1, std::memory_order_relaxed); }
  [[nodiscard]] MonoNs clock() const noexcept { return clock_(); }

 private:
  Set& set_;
  Header& header_;
  BucketTable::Clock clock_;
};

// Repeats a step until it is done. RETURNS: false when it lost too many races in a row.
template <class StepFunction>
bool run(StepFunction step) noexcept {
  for (unsigned round = 0; round < kMaxRounds; ++round) {
    if (step() == Step::done) {
      return true;
    }
  }
  return false;
}

SlotOrder make_order(const BucketUse& use, std::uint64_t cost, MonoNs now) noexcept {
  SlotOrder order;
  order.tag = std::max<std::uint64_t>(tag_of(use.subject), 1);
  order.limit = use.limit;
  order.cost = cost;
  order.now = now;
  order.may_overdraw = use.may_overdraw;
  return order;
}

constexpr BucketResult busy() noexcept {
  BucketResult result;
  result.retry_after_ns = kBusyRetryNs;
  return result;
}

}  // namespace

std::size_t BucketTable::bytes_for(std::size_t slots) noexcept {
  return sizeof(Header) + std::max<std::size_t>((slots + kSlotsPerSet - 1) / kSlotsPerSet, 1) * sizeof(Set);
}

Status BucketTable::format(std::span<std::byte> memory, const SipKey& seed, Clock clock, BucketTable& table) noexcept {
  static_assert(kSlotsPerSet <= kMostSlots);
  static_assert(sizeof(Header) == 256 && sizeof(Set) == 128 && std::is_trivially_destructible_v<Set>);
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Set) != 0) {
    return {StatusCode::bad_value, "a table of buckets needs memory aligned to {0} bytes", alignof(Set)};
  }
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::bad_value, "{0} bytes are too few for a table of buckets; it needs {1} at least", memory.size(),
            bytes_for(1)};
  }
  auto* header = ::new (memory.data()) Header;
  header->set_count = (memory.size() - sizeof(Header)) / sizeof(Set);
  header->seed = seed;
  auto* sets = reinterpret_cast<Set*>(memory.data() + sizeof(Header));
  for (std::uint64_t i = 0; i < header->set_count; ++i) {
    ::new (sets + i) Set;
  }
  // Last, so that a table whose maker died is no table.
  header->magic.store(kMagic, std::memory_order_release);
  table.header_ = header;
  table.sets_ = sets;
  table.clock_ = clock;
  return {};
}

Status BucketTable::attach(std::span<std::byte> memory, Clock clock, BucketTable& table) noexcept {
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::unsupported, "{0} bytes hold no table of buckets", memory.size()};
  }
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Set) != 0) {
    return {StatusCode::unsupported, "a table of buckets needs memory aligned to {0} bytes", alignof(Set)};
  }
  auto* header = reinterpret_cast<Header*>(memory.data());
  if (header->magic.load(std::memory_order_acquire) != kMagic) {
    return {StatusCode::unsupported, "there is no table of buckets in this memory"};
  }
  if (header->layout != kLayout) {
    return {StatusCode::unsupported, "the table of buckets has layout {0}, this build uses layout {1}", header->layout,
            kLayout};
  }
  const std::uint64_t fitting = (memory.size() - sizeof(Header)) / sizeof(Set);
  if (header->set_count != fitting) {
    return {StatusCode::unsupported, "the table of buckets has {0} sets, this memory holds {1}", header->set_count,
            fitting};
  }
  table.header_ = header;
  table.sets_ = reinterpret_cast<Set*>(memory.data() + sizeof(Header));
  table.clock_ = clock;
  return {};
}

std::uint64_t BucketTable::subject(std::string_view limit_name, std::span<const std::uint8_t> id) const noexcept {
  // The length before the name: ("ab", "c") and ("a", "bc") are two subjects.
  const std::uint64_t name_length = limit_name.size();
  SipHash hash(header_->seed);
  hash.update(std::as_bytes(std::span(&name_length, 1)));
  hash.update(std::as_bytes(std::span(limit_name)));
  hash.update(std::as_bytes(id));
  return hash.finish();
}

BucketTable::Set& BucketTable::set_of(std::uint64_t subject) const noexcept {
  return sets_[static_cast<std::uint64_t>((Wide{subject} * header_->set_count) >> 64U)];
}

BucketResult BucketTable::take(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept {
  if (cost == 0) {
    return look(use, cost, now);
  }
  SharedSet set(set_of(use.subject), *header_, clock_);
  const SlotOrder order = make_order(use, cost, now);
  BucketResult result;
  return run([&] { return try_take(set, order, result); }) ? result : busy();
}

BucketResult BucketTable::look(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept {
  SharedSet set(set_of(use.subject), *header_, clock_);
  const SlotOrder order = make_order(use, cost, now);
  BucketResult result;
  return run([&] { return try_look(set, order, result); }) ? result : busy();
}

BucketResult BucketTable::look_at_own(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept {
  SharedSet set(set_of(use.subject), *header_, clock_);
  const SlotOrder order = make_order(use, cost, now);
  BucketResult result;
  return run([&] { return try_look_at_own(set, order, result); }) ? result : busy();
}

void BucketTable::charge(const BucketUse& use, std::uint64_t cost, MonoNs now) const noexcept {
  SharedSet set(set_of(use.subject), *header_, clock_);
  SlotOrder order = make_order(use, cost, now);
  order.is_forced = true;
  BucketResult result;
  run([&] { return try_take(set, order, result); });
}

void BucketTable::give_back(const BucketUse& use, std::uint64_t cost, std::uint64_t taken_ns,
                            MonoNs now) const noexcept {
  SharedSet set(set_of(use.subject), *header_, clock_);
  SlotOrder order = make_order(use, cost, now);
  order.taken_ns = taken_ns;
  run([&] { return try_give_back(set, order); });
}

BucketTable::Usage BucketTable::usage(MonoNs now) const noexcept {
  Usage usage;
  const std::span sets(sets_, sets_ == nullptr ? 0 : header_->set_count);
  usage.slots = sets.size() * kSlotsPerSet;
  usage.forced_evictions = header_ == nullptr ? 0 : header_->forced_evictions.load(std::memory_order_relaxed);
  for (const Set& set : sets) {
    for (const WideWord& word : set.slots) {
      const WidePair slot = word.peek();
      usage.used += tag_of(slot.low) != 0 && arrival_of(slot) > now.value ? 1 : 0;
    }
  }
  return usage;
}

}  // namespace apikey
