// The table of requests in flight in shared memory: layout, where a subject stands, and how a free lease is found.
// Called when limits are taken, when requests end, and by a worker that looks after processes that died.
// The steps are those of flight_set.hpp. Never waits: after kMaxRounds lost races an entering request is told `full`.
#include "apikey/flight_table.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <new>
#include <type_traits>

#include "apikey/flight_set.hpp"
#include "apikey/slot_reach.hpp"

namespace apikey {

namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kMagic = 0x3130594c46594b41;  // "AKYFLY01" in memory
constexpr unsigned kMaxRounds = 4096;
constexpr std::size_t kGroupSize = 8;
static_assert(SlotReach<kGroupSize, kFlightTagBits>::kReach == FlightTable::kReach);
constexpr std::size_t kLeasesPerSlot = 4;
constexpr std::size_t kLeasesPerLine = 8;  // 64 bytes
constexpr std::size_t kLeaseProbes = 128;  // lines looked at for a free lease

}  // namespace

struct alignas(64) FlightTable::Header {
  std::atomic<std::uint64_t> magic{0};
  std::uint64_t layout = kLayout;
  std::uint64_t slot_count = 0;
  SipKey seed{};
};

struct FlightTable::Slot {
  WideWord word;
};

struct FlightTable::LeaseWord {
  std::atomic<std::uint64_t> word{0};
};

namespace {

constexpr std::uint64_t mix(std::uint64_t value) noexcept {
  value = (value ^ value >> 32U) * 0xd6e8feb86659fd93;
  return value ^ value >> 32U;
}

}  // namespace

// The table as the steps see it, from where one tag points.
class FlightTable::View {
 public:
  View(const FlightTable& table, std::uint64_t tag) noexcept
      : slots_(table.slots_),
        leases_(table.leases_),
        slot_count_(table.header_->slot_count),
        reach_(tag, slot_count_) {}

  [[nodiscard]] std::size_t size() const noexcept { return reach_.size(); }
  [[nodiscard]] std::size_t group_size() const noexcept { return kGroupSize; }
  [[nodiscard]] bool holds(std::size_t i, std::uint64_t tag) const noexcept {
    return (slots_[number_of(i)].word.low() & kFlightTagMask) == tag;
  }
  [[nodiscard]] WidePair load(std::size_t i) const noexcept { return slots_[number_of(i)].word.peek(); }
  bool swap(std::size_t i, const WidePair& expected, const WidePair& desired) noexcept {
    return slots_[number_of(i)].word.swap(expected, desired);
  }
  [[nodiscard]] std::uint64_t tag(const WidePair& word) const noexcept { return flight_tag(word); }
  [[nodiscard]] bool is_tentative(const WidePair& word) const noexcept { return is_flight_tentative(word); }
  [[nodiscard]] bool is_free(const WidePair& word) const noexcept { return flight_count(word) == 0; }
  WidePair claim(std::uint64_t tag, const WidePair& word) noexcept { return claim_flight(word, tag); }
  [[nodiscard]] WidePair free(const WidePair& word) const noexcept { return next_flight(word, 0, 0); }

  [[nodiscard]] std::uint32_t number_of(std::size_t i) const noexcept { return static_cast<std::uint32_t>(reach_[i]); }
  // The number comes from a lease, which may be rubbish: then it is some slot, and never one beyond the table.
  [[nodiscard]] WidePair load_slot(std::size_t number) const noexcept { return slot_at(number).word.peek(); }
  bool swap_slot(std::size_t number, const WidePair& expected, const WidePair& desired) noexcept {
    return slot_at(number).word.swap(expected, desired);
  }
  [[nodiscard]] std::size_t lease_count() const noexcept { return slot_count_ * kLeasesPerSlot; }
  [[nodiscard]] std::uint64_t lease(std::size_t j) const noexcept {
    return leases_[j].word.load(std::memory_order_acquire);
  }
  void put_lease(std::size_t j, std::uint64_t word) noexcept { leases_[j].word.store(word, std::memory_order_release); }
  bool swap_lease(std::size_t j, std::uint64_t expected, std::uint64_t desired) noexcept {
    return leases_[j].word.compare_exchange_strong(expected, desired);
  }
  // Looked for at places that differ from request to request, so that long-lived requests form no heap that every
  // search runs into; then all along, which finds the last ones of a small table.
  [[nodiscard]] std::size_t free_lease(std::size_t number, const WidePair& slot) const noexcept {
    const std::size_t lines = (lease_count() + kLeasesPerLine - 1) / kLeasesPerLine;
    const std::uint64_t seed = slot.high + number * 0x9e3779b97f4a7c15;
    std::size_t line = 0;
    for (std::size_t probe = 0; probe < 2 * kLeaseProbes; ++probe) {
      const auto chosen = static_cast<std::size_t>(Wide{mix(seed + (std::uint64_t{probe} << 48U))} * lines >> 64U);
      line = probe < kLeaseProbes ? chosen : (line + 1) % lines;
      if (const std::size_t found = free_lease_in(line); found != lease_count()) {
        return found;
      }
    }
    return lease_count();
  }

 private:
  [[nodiscard]] Slot& slot_at(std::size_t number) const noexcept { return slots_[number < slot_count_ ? number : 0]; }
  [[nodiscard]] std::size_t free_lease_in(std::size_t line) const noexcept {
    const std::size_t end = std::min((line + 1) * kLeasesPerLine, lease_count());
    for (std::size_t j = line * kLeasesPerLine; j < end; ++j) {
      if (leases_[j].word.load(std::memory_order_relaxed) == 0) {
        return j;
      }
    }
    return lease_count();
  }

  Slot* slots_;
  LeaseWord* leases_;
  std::size_t slot_count_;
  SlotReach<kGroupSize, kFlightTagBits> reach_;
};

namespace {

// Repeats a step until it is done. RETURNS: false when there is no room, or too many races in a row were lost.
template <class StepFunction>
bool run(StepFunction step) noexcept {
  for (unsigned round = 0; round < kMaxRounds; ++round) {
    const Turn turn = step();
    if (turn != Turn::again) {
      return turn == Turn::done;
    }
  }
  return false;
}

constexpr std::uint64_t tag_of_subject(std::uint64_t subject) noexcept {
  return std::max<std::uint64_t>(subject >> (64 - kFlightTagBits), 1);
}

constexpr bool is_same(FlightHolder a, FlightHolder b) noexcept { return a.row == b.row && a.mark == b.mark; }

// Asks about each process once, unless another one came by its row.
class Mourner {
 public:
  Mourner(FlightHolder self, bool (*is_alive)(FlightHolder holder)) noexcept : self_(self), is_alive_(is_alive) {}
  [[nodiscard]] bool is_dead(FlightHolder holder) noexcept {
    if (holder.row == self_.row) {
      return !is_same(holder, self_);
    }
    Answer& answer = answers_[holder.row % answers_.size()];
    if (!is_same(answer.holder, holder)) {
      answer = {holder, !is_alive_(holder)};
    }
    return answer.is_dead;
  }

 private:
  struct Answer {
    FlightHolder holder;
    bool is_dead = false;
  };
  FlightHolder self_;
  bool (*is_alive_)(FlightHolder holder);
  std::array<Answer, 256> answers_{};
};

}  // namespace

std::size_t FlightTable::bytes_for(std::size_t slots) noexcept {
  const std::size_t groups = (std::clamp<std::size_t>(slots, 1, kMaxFlightSlots) + kGroupSize - 1) / kGroupSize;
  return sizeof(Header) + groups * kGroupSize * (sizeof(Slot) + kLeasesPerSlot * sizeof(LeaseWord));
}

// How many slots, each with its leases, fit.
std::uint64_t FlightTable::slots_in(std::size_t bytes) noexcept {
  const std::size_t fitting = (bytes - sizeof(Header)) / (sizeof(Slot) + kLeasesPerSlot * sizeof(LeaseWord));
  return std::min(fitting, kMaxFlightSlots) / kGroupSize * kGroupSize;
}

void FlightTable::lay_over(std::span<std::byte> memory) noexcept {
  header_ = reinterpret_cast<Header*>(memory.data());
  slots_ = reinterpret_cast<Slot*>(memory.data() + sizeof(Header));
  leases_ = reinterpret_cast<LeaseWord*>(slots_ + header_->slot_count);
}

Status FlightTable::format(std::span<std::byte> memory, const SipKey& seed, FlightTable& table) noexcept {
  static_assert(sizeof(Header) == 64 && sizeof(Slot) == 16 && sizeof(LeaseWord) == 8);
  static_assert(std::is_trivially_destructible_v<Slot> && std::is_trivially_destructible_v<LeaseWord>);
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Header) != 0) {
    return {StatusCode::bad_value, "a table of requests in flight needs memory aligned to {0} bytes", alignof(Header)};
  }
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::bad_value, "{0} bytes are too few for a table of requests in flight; it needs {1} at least",
            memory.size(), bytes_for(1)};
  }
  auto* header = ::new (memory.data()) Header;
  header->slot_count = slots_in(memory.size());
  header->seed = seed;
  table.lay_over(memory);
  for (std::uint64_t i = 0; i < header->slot_count; ++i) {
    ::new (table.slots_ + i) Slot;
  }
  for (std::uint64_t j = 0; j < header->slot_count * kLeasesPerSlot; ++j) {
    ::new (table.leases_ + j) LeaseWord;
  }
  // Last, so that a table whose maker died is no table.
  header->magic.store(kMagic, std::memory_order_release);
  return {};
}

Status FlightTable::attach(std::span<std::byte> memory, FlightTable& table) noexcept {
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::unsupported, "{0} bytes hold no table of requests in flight", memory.size()};
  }
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Header) != 0) {
    return {StatusCode::unsupported, "a table of requests in flight needs memory aligned to {0} bytes",
            alignof(Header)};
  }
  const auto* header = reinterpret_cast<const Header*>(memory.data());
  if (header->magic.load(std::memory_order_acquire) != kMagic) {
    return {StatusCode::unsupported, "there is no table of requests in flight in this memory"};
  }
  if (header->layout != kLayout) {
    return {StatusCode::unsupported, "the table of requests in flight has layout {0}, this build uses layout {1}",
            header->layout, kLayout};
  }
  if (header->slot_count != slots_in(memory.size())) {
    return {StatusCode::unsupported, "the table of requests in flight has {0} slots, this memory holds {1}",
            header->slot_count, slots_in(memory.size())};
  }
  table.lay_over(memory);
  return {};
}

std::uint64_t FlightTable::subject(std::string_view limit_name, std::span<const std::uint8_t> id) const noexcept {
  // The length before the name: ("ab", "c") and ("a", "bc") are two subjects.
  const std::uint64_t name_length = limit_name.size();
  SipHash hash(header_ == nullptr ? SipKey{} : header_->seed);
  hash.update(std::as_bytes(std::span(&name_length, 1)));
  hash.update(std::as_bytes(std::span(limit_name)));
  hash.update(std::as_bytes(id));
  return hash.finish();
}

FlightResult FlightTable::enter(std::uint64_t subject, std::uint64_t most, FlightHolder holder,
                                FlightLease& lease) const noexcept {
  if (header_ == nullptr) {
    return {};
  }
  const FlightOrder order{tag_of_subject(subject), std::min(most, kMaxConcurrency), holder};
  View view(*this, order.tag);
  FlightDraft draft;
  FlightResult result;
  const bool is_done = run([&] { return try_enter(view, order, draft, result); });
  if (is_done && result.status == FlightResult::Status::admitted) {
    lease.index = draft.lease;
    return result;
  }
  drop_lease(view, draft);
  return is_done ? result : FlightResult{};
}

FlightResult FlightTable::look(std::uint64_t subject, std::uint64_t most) const noexcept {
  if (header_ == nullptr) {
    return {};
  }
  View view(*this, tag_of_subject(subject));
  FlightResult result;
  return run([&] { return try_look_flight(view, tag_of_subject(subject), std::min(most, kMaxConcurrency), result); })
             ? result
             : FlightResult{};
}

void FlightTable::leave(FlightLease& lease, FlightHolder holder) const noexcept {
  const std::uint32_t index = lease.index;
  lease.index = UINT32_MAX;
  if (header_ == nullptr || index >= header_->slot_count * kLeasesPerSlot) {
    return;
  }
  View view(*this, 1);
  const std::uint64_t word = view.lease(index);
  FlightExit exit;
  if (is_same(decode_lease(word).holder, holder) && begin_leave(view, index, word, holder, exit)) {
    while (try_leave(view, exit) != Turn::done) {
    }
  }
}

std::uint64_t FlightTable::release_dead(FlightHolder self, bool (*is_alive)(FlightHolder holder)) const noexcept {
  FlightSweep sweep;
  if (header_ != nullptr) {
    View view(*this, 1);
    Mourner mourner(self, is_alive);
    while (try_sweep(
               view, self, [&](FlightHolder holder) { return mourner.is_dead(holder); }, sweep) != Turn::done) {
    }
  }
  return sweep.released;
}

FlightTable::Usage FlightTable::usage() const noexcept {
  Usage usage;
  if (header_ == nullptr) {
    return usage;
  }
  usage.slots = header_->slot_count;
  usage.leases = header_->slot_count * kLeasesPerSlot;
  for (const Slot& slot : std::span(slots_, usage.slots)) {
    const std::uint64_t count = flight_count({slot.word.low(), 0});
    usage.subjects += count != 0 ? 1 : 0;
    usage.in_flight += count;
  }
  return usage;
}

}  // namespace apikey
