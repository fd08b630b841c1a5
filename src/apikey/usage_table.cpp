// Counting what keys use: finding or claiming the slot of a key and hour, freeing acknowledged hours, reading and
// restoring slots.
// Called in the log phase by every worker, by the handler that hands counts out, and by whoever saves them.
// Never waits, never retries: what loses a race takes another slot.
#include "apikey/usage_table.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

namespace apikey {

namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kMagic = 0x3130454741535541;  // "AUSAGE01" in memory
constexpr unsigned kHourBits = 24;
constexpr std::uint64_t kHourMask = (std::uint64_t{1} << kHourBits) - 1;
constexpr std::uint64_t kMaxHour = kHourMask - 1;
constexpr unsigned kHashShift = 26;
constexpr std::uint64_t kStateMask = std::uint64_t{3} << kHourBits;
constexpr std::uint64_t kClaimed = std::uint64_t{1} << kHourBits;
constexpr std::uint64_t kCounting = std::uint64_t{2} << kHourBits;
constexpr std::uint64_t kRestored = std::uint64_t{3} << kHourBits;
constexpr std::size_t kNoCounter = kUsageCounters;

constexpr std::uint64_t make_tag(std::uint64_t hash, std::uint64_t state, std::uint64_t hour) noexcept {
  return hash << kHashShift | state | hour;
}
constexpr std::uint64_t hour_of(std::uint64_t tag) noexcept { return tag & kHourMask; }
constexpr std::uint64_t with_state(std::uint64_t tag, std::uint64_t state) noexcept {
  return (tag & ~kStateMask) | state;
}

constexpr std::array<std::size_t, kOutcomeCount> make_counters_of_outcomes() noexcept {
  std::array<std::size_t, kOutcomeCount> counters{};
  counters.fill(kNoCounter);
  counters[static_cast<std::size_t>(Outcome::ok)] = kUsageAdmitted;
  for (std::size_t i = 0; i < kUsageRefusals.size(); ++i) {
    counters[static_cast<std::size_t>(kUsageRefusals[i])] = kUsageNamedCounters + i;
  }
  return counters;
}
constexpr std::array<std::size_t, kOutcomeCount> kCounterOfOutcome = make_counters_of_outcomes();

std::uint64_t hour_at(UnixSec now) noexcept {
  return std::min<std::uint64_t>(static_cast<std::uint64_t>(std::max<std::int64_t>(now.value, 0)) / kUsageHour,
                                 kMaxHour);
}

}  // namespace

// Who a slot is for: 16 bytes of owner, 13 of key, zeros. All zeros: an overflow slot.
struct UsageTable::Name {
  std::array<std::uint64_t, 4> words{};

  static Name of(const UsageOwner& owner, const KeyId& key) noexcept {
    Name name;
    std::memcpy(name.words.data(), owner.data(), owner.size());
    std::memcpy(&name.words[2], key.bytes.data(), key.bytes.size());
    return name;
  }
};

struct alignas(64) UsageTable::Header {
  std::atomic<std::uint64_t> magic{0};
  std::uint64_t layout = kLayout;
  std::uint64_t slot_count = 0;  // without overflow slots
  SipKey seed{};
  std::uint64_t incarnation = 0;
  std::atomic<std::uint64_t> acknowledged{0};
  std::atomic<std::uint64_t> overflows{0};
  std::atomic<std::uint64_t> unplaced{0};
  // Written before the first request is counted, read-only afterwards.
  UsageInstance instance{};
  std::int64_t created = 0;
  std::uint64_t gap_count = 0;
  std::array<UsageGap, kMaxUsageGaps> gaps{};
};

struct UsageTable::Slot {
  std::atomic<std::uint64_t> row;
  std::array<std::atomic<std::uint64_t>, 4> name;
  std::array<std::atomic<std::uint64_t>, kUsageCounters> counters;

  // Stores that a reader who sees any of them also sees the tag of: he began with another one, and looks again.
  void fill(std::uint64_t row_id, const Name& of, const std::array<std::uint64_t, kUsageCounters>& counts) noexcept {
    row.store(row_id, std::memory_order_release);
    for (std::size_t i = 0; i < name.size(); ++i) {
      name[i].store(of.words[i], std::memory_order_release);
    }
    for (std::size_t i = 0; i < counters.size(); ++i) {
      counters[i].store(counts[i], std::memory_order_release);
    }
  }
  [[nodiscard]] bool is_of(const Name& wanted) const noexcept {
    return std::equal(name.begin(), name.end(), wanted.words.begin(), [](const auto& stored, std::uint64_t word) {
      return stored.load(std::memory_order_relaxed) == word;
    });
  }
  void add(std::size_t counter, std::uint64_t n) noexcept {
    if (n != 0) {
      counters[counter].fetch_add(n, std::memory_order_relaxed);
    }
  }
};

std::size_t UsageTable::bytes_for(std::size_t slots) noexcept {
  return sizeof(Header) + (std::max<std::size_t>(slots, 1) + kOverflowSlots) * (sizeof(Slot) + sizeof(Tag));
}

Status UsageTable::format(std::span<std::byte> memory, const SipKey& seed, const UsageOrigin& origin,
                          UsageTable& table) noexcept {
  static_assert(std::is_trivially_destructible_v<Slot> && Tag::is_always_lock_free);
  static_assert(sizeof(Slot) == 40 + 8 * kUsageCounters);
  static_assert(std::has_unique_object_representations_v<UsageHead>);
  static_assert(std::has_unique_object_representations_v<UsageRow>);
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Header) != 0) {
    return {StatusCode::bad_value, "a table of usage needs memory aligned to {0} bytes", alignof(Header)};
  }
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::bad_value, "{0} bytes are too few for a table of usage; it needs {1} at least", memory.size(),
            bytes_for(1)};
  }
  auto* header = ::new (memory.data()) Header;
  header->slot_count = (memory.size() - sizeof(Header)) / (sizeof(Slot) + sizeof(Tag)) - kOverflowSlots;
  header->seed = seed;
  header->incarnation = origin.incarnation;
  header->instance = origin.instance;
  header->created = origin.created.value;
  table.header_ = header;
  table.slot_count_ = header->slot_count;
  table.slots_ = reinterpret_cast<Slot*>(memory.data() + sizeof(Header));
  table.tags_ = reinterpret_cast<Tag*>(table.slots_ + table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    ::new (table.slots_ + i) Slot;
    ::new (table.tags_ + i) Tag(0);
  }
  // Last, so that a table whose maker died is no table.
  header->magic.store(kMagic, std::memory_order_release);
  return {};
}

Status UsageTable::attach(std::span<std::byte> memory, UsageTable& table) noexcept {
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::unsupported, "{0} bytes hold no table of usage", memory.size()};
  }
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Header) != 0) {
    return {StatusCode::unsupported, "a table of usage needs memory aligned to {0} bytes", alignof(Header)};
  }
  auto* header = reinterpret_cast<Header*>(memory.data());
  if (header->magic.load(std::memory_order_acquire) != kMagic) {
    return {StatusCode::unsupported, "there is no table of usage in this memory"};
  }
  if (header->layout != kLayout) {
    return {StatusCode::unsupported, "the table of usage has layout {0}, this build uses layout {1}", header->layout,
            kLayout};
  }
  const std::uint64_t fitting = (memory.size() - sizeof(Header)) / (sizeof(Slot) + sizeof(Tag)) - kOverflowSlots;
  if (header->slot_count != fitting) {
    return {StatusCode::unsupported, "the table of usage has {0} slots, this memory holds {1}", header->slot_count,
            fitting};
  }
  table.header_ = header;
  table.slot_count_ = fitting;
  table.slots_ = reinterpret_cast<Slot*>(memory.data() + sizeof(Header));
  table.tags_ = reinterpret_cast<Tag*>(table.slots_ + table.size());
  return {};
}

std::size_t UsageTable::size() const noexcept {
  return header_ == nullptr ? 0 : static_cast<std::size_t>(slot_count_) + kOverflowSlots;
}

UsageTable::Run UsageTable::run_of(std::uint64_t hash) const noexcept {
  return {0, slot_count_, static_cast<std::size_t>((Wide{hash} * slot_count_) >> 64U)};
}

UsageTable::Run UsageTable::overflow_run() const noexcept { return {slot_count_, kOverflowSlots, 0}; }

// RETURNS: null when somebody else was faster, or the hour has been acknowledged meanwhile.
UsageTable::Slot* UsageTable::claim(const Name& name, std::uint64_t live_tag, std::size_t index) const noexcept {
  std::uint64_t expected = 0;
  std::uint64_t claimed = with_state(live_tag, kClaimed);
  if (!tags_[index].compare_exchange_strong(expected, claimed, std::memory_order_acq_rel)) {
    return nullptr;
  }
  slots_[index].fill(header_->incarnation << 32U | index, name, {});
  const bool is_ours = tags_[index].compare_exchange_strong(claimed, live_tag, std::memory_order_release);
  return is_ours ? slots_ + index : nullptr;
}

// The slot of that name and hour; a claimed one when there is none. RETURNS: null when no slot is free.
UsageTable::Slot* UsageTable::seat(const Name& name, std::uint64_t live_tag, const Run& run) const noexcept {
  const std::size_t reach = std::min(run.count, kReach);
  const auto index = [&](std::size_t i) { return run.first + (run.home + i) % run.count; };
  const auto is_there = [&](std::size_t at) {
    return tags_[at].load(std::memory_order_acquire) == live_tag && slots_[at].is_of(name);
  };
  for (std::size_t i = 0; i < reach; ++i) {
    if (is_there(index(i))) {
      return slots_ + index(i);
    }
  }
  for (std::size_t i = 0; i < reach; ++i) {
    if (tags_[index(i)].load(std::memory_order_relaxed) == 0) {
      if (Slot* slot = claim(name, live_tag, index(i))) {
        return slot;
      }
      if (is_there(index(i))) {  // another worker came in between with the same key
        return slots_ + index(i);
      }
    }
  }
  return nullptr;
}

void UsageTable::count(const UsageEvent& event, UnixSec now) const noexcept {
  const std::size_t counter = kCounterOfOutcome[static_cast<std::size_t>(event.outcome)];
  if (header_ == nullptr || counter == kNoCounter) {
    return;
  }
  const std::uint64_t hour = std::max(hour_at(now), header_->acknowledged.load(std::memory_order_relaxed) + 1);
  const Name name = Name::of(event.owner, event.key);
  SipHash sip(header_->seed);
  sip.update(std::as_bytes(std::span(name.words)));
  sip.update(std::as_bytes(std::span(&hour, 1)));
  const std::uint64_t hash = sip.finish();
  Slot* slot = seat(name, make_tag(hash, kCounting, hour), run_of(hash));
  if (slot == nullptr) {
    header_->overflows.fetch_add(1, std::memory_order_relaxed);
    slot = seat({}, make_tag(0, kCounting, hour), overflow_run());
  }
  if (slot == nullptr) {
    header_->unplaced.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  slot->add(counter, 1);
  slot->add(kUsageCost, event.cost);
  slot->add(kUsageRefunded, event.refunded);
  slot->add(kUsageBytes, event.bytes);
  slot->add(kUsageUpstreamUs, event.upstream_us);
}

bool UsageTable::acknowledge(std::uint64_t hour, UnixSec now) const noexcept {
  if (header_ == nullptr || now.value < kUsageSettling || hour >= hour_at({now.value - kUsageSettling})) {
    return false;
  }
  std::uint64_t before = header_->acknowledged.load(std::memory_order_relaxed);
  while (before < hour && !header_->acknowledged.compare_exchange_weak(before, hour)) {
  }
  const std::uint64_t last = std::max(before, hour);
  for (std::size_t i = 0; i < size(); ++i) {
    std::uint64_t tag = tags_[i].load(std::memory_order_relaxed);
    if (tag != 0 && hour_of(tag) <= last) {
      tags_[i].compare_exchange_strong(tag, 0);
    }
  }
  return true;
}

UsageTable::Usage UsageTable::usage() const noexcept {
  Usage usage;
  if (header_ == nullptr) {
    return usage;
  }
  usage.slots = slot_count_;
  usage.overflows = header_->overflows.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < slot_count_; ++i) {
    usage.used += tags_[i].load(std::memory_order_relaxed) != 0 ? 1U : 0U;
  }
  return usage;
}

UsageHead UsageTable::head() const noexcept {
  UsageHead head;
  if (header_ != nullptr) {
    head.instance = header_->instance;
    head.created = header_->created;
    head.acknowledged = header_->acknowledged.load(std::memory_order_acquire);
    head.overflows = header_->overflows.load(std::memory_order_relaxed);
    head.unplaced = header_->unplaced.load(std::memory_order_relaxed);
    head.gap_count = std::min<std::uint64_t>(header_->gap_count, kMaxUsageGaps);
    head.gaps = header_->gaps;
  }
  return head;
}

bool UsageTable::save(std::size_t slot, UsageRow& row) const noexcept {
  const std::uint64_t tag = tags_[slot].load(std::memory_order_acquire);
  const std::uint64_t state = tag & kStateMask;
  if ((state != kCounting && state != kRestored) ||
      hour_of(tag) <= header_->acknowledged.load(std::memory_order_relaxed)) {
    return false;
  }
  const Slot& from = slots_[slot];
  row.row = from.row.load(std::memory_order_acquire);
  std::array<std::uint64_t, 4> name;
  std::transform(from.name.begin(), from.name.end(), name.begin(),
                 [](const auto& word) { return word.load(std::memory_order_acquire); });
  std::memcpy(row.owner.data(), name.data(), row.owner.size());
  std::memcpy(row.key.bytes.data(), &name[2], row.key.bytes.size());
  row.zero = {};
  row.hour = hour_of(tag);
  std::transform(from.counters.begin(), from.counters.end(), row.counters.begin(),
                 [](const auto& counter) { return counter.load(std::memory_order_acquire); });
  return tags_[slot].load(std::memory_order_relaxed) == tag;
}

void UsageTable::add_gap(UsageGap gap) const noexcept {
  if (header_->gap_count == kMaxUsageGaps) {
    // The two oldest become one that holds both: rather too wide than forgotten.
    header_->gaps[1] = {std::min(header_->gaps[0].from, header_->gaps[1].from),
                        std::max(header_->gaps[0].to, header_->gaps[1].to)};
    std::move(header_->gaps.begin() + 1, header_->gaps.end(), header_->gaps.begin());
    --header_->gap_count;
  }
  header_->gaps[header_->gap_count++] = gap;
}

void UsageTable::restore(const UsageHead& head, UsageGap gap) const noexcept {
  header_->instance = head.instance;
  header_->created = head.created;
  header_->acknowledged.store(std::min(head.acknowledged, kMaxHour - 1), std::memory_order_relaxed);
  header_->overflows.store(head.overflows, std::memory_order_relaxed);
  header_->unplaced.store(head.unplaced, std::memory_order_relaxed);
  header_->gap_count = std::min<std::uint64_t>(head.gap_count, kMaxUsageGaps);
  header_->gaps = head.gaps;
  if (gap.from != gap.to) {
    add_gap(gap);
  }
}

bool UsageTable::restore(const UsageRow& row) const noexcept {
  if (row.hour > kMaxHour || row.hour <= header_->acknowledged.load(std::memory_order_relaxed)) {
    return true;
  }
  // A restored slot is never looked for, so any place will do; spread out they are in nobody's way.
  SipHash sip(header_->seed);
  sip.update(std::as_bytes(std::span(&row.row, 1)));
  const std::uint64_t hash = sip.finish();
  const Run run = run_of(hash);
  for (std::size_t i = 0; i < run.count; ++i) {
    const std::size_t at = (run.home + i) % run.count;
    if (tags_[at].load(std::memory_order_relaxed) == 0) {
      slots_[at].fill(row.row, Name::of(row.owner, row.key), row.counters);
      tags_[at].store(make_tag(hash, kRestored, row.hour), std::memory_order_release);
      return true;
    }
  }
  const auto begin = static_cast<std::int64_t>(row.hour) * kUsageHour;
  add_gap({begin, begin + kUsageHour});
  return false;
}

}  // namespace apikey
