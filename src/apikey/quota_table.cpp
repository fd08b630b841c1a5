// The table of quotas in shared memory: layout, where a quota stands, checkpoints.
// Called when limits are taken, when requests are settled, by the master when it makes, adopts or restores a table, and
// by the thread that writes checkpoints. The steps are those of quota_set.hpp. Never waits: after kMaxRounds lost races
// the answer is `full`.
#include "apikey/quota_table.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <new>
#include <type_traits>

#include "apikey/quota_set.hpp"
#include "apikey/slot_reach.hpp"

namespace apikey {

namespace {

constexpr std::uint64_t kMagic = 0x3130544f55514b41;  // "AKQUOT01" in memory
constexpr unsigned kMaxRounds = 4096;
constexpr std::size_t kGroupSize = 16;
static_assert(SlotReach<kGroupSize, kQuotaTagBits>::kReach == QuotaTable::kReach);

}  // namespace

struct alignas(64) QuotaTable::Header {
  std::atomic<std::uint64_t> magic{0};
  std::uint64_t layout = kLayout;
  std::uint64_t slot_count = 0;
  SipKey key{};
  alignas(64) std::atomic<std::uint64_t> claims{0};  // how many slots were claimed
};

struct QuotaTable::Slot {
  WideWord word;
};

namespace {

// The slots one quota may stand in, as the steps see them.
template <class Header, class Slot>
class Reach {
 public:
  Reach(Header& header, Slot* slots, std::uint64_t tag, WallUs now) noexcept
      : header_(header), slots_(slots), reach_(tag, header.slot_count), now_(now) {}
  [[nodiscard]] std::size_t size() const noexcept { return reach_.size(); }
  [[nodiscard]] std::size_t group_size() const noexcept { return kGroupSize; }
  [[nodiscard]] bool holds(std::size_t i, std::uint64_t tag) const noexcept {
    const WideWord& word = at(i);
    return word.low() >> 32U == (tag & 0xffff'ffffU) && quota_tag({tag << 32U, word.high()}) == tag;
  }
  [[nodiscard]] WidePair load(std::size_t i) const noexcept { return at(i).peek(); }
  bool swap(std::size_t i, const WidePair& expected, const WidePair& desired) noexcept {
    return at(i).swap(expected, desired);
  }
  [[nodiscard]] std::uint64_t tag(const WidePair& word) const noexcept { return quota_tag(word); }
  [[nodiscard]] bool is_tentative(const WidePair& word) const noexcept { return is_quota_claim(word); }
  [[nodiscard]] bool is_free(const WidePair& word) const noexcept { return is_quota_free(word, now_); }
  WidePair claim(std::uint64_t tag, const WidePair&) noexcept {
    return encode_claim(tag, header_.claims.fetch_add(1, std::memory_order_relaxed));
  }
  [[nodiscard]] WidePair free(const WidePair&) const noexcept { return {}; }

 private:
  [[nodiscard]] WideWord& at(std::size_t i) const noexcept { return slots_[reach_[i]].word; }
  Header& header_;
  Slot* slots_;
  SlotReach<kGroupSize, kQuotaTagBits> reach_;
  WallUs now_;
};

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

}  // namespace

std::size_t QuotaTable::bytes_for(std::size_t slots) noexcept {
  const std::size_t groups = std::max<std::size_t>((slots + kGroupSize - 1) / kGroupSize, 1);
  return sizeof(Header) + groups * kGroupSize * sizeof(Slot);
}

std::uint64_t QuotaTable::slots_in(std::size_t bytes) noexcept {
  return (bytes - sizeof(Header)) / (kGroupSize * sizeof(Slot)) * kGroupSize;
}

Status QuotaTable::format(std::span<std::byte> memory, const SipKey& seed, QuotaTable& table) noexcept {
  static_assert(sizeof(Header) == 128 && sizeof(Slot) == 16 && std::is_trivially_destructible_v<Slot>);
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Header) != 0) {
    return {StatusCode::bad_value, "a table of quotas needs memory aligned to {0} bytes", alignof(Header)};
  }
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::bad_value, "{0} bytes are too few for a table of quotas; it needs {1} at least", memory.size(),
            bytes_for(1)};
  }
  auto* header = ::new (memory.data()) Header;
  header->slot_count = slots_in(memory.size());
  header->key = seed;
  auto* slots = reinterpret_cast<Slot*>(memory.data() + sizeof(Header));
  for (std::uint64_t i = 0; i < header->slot_count; ++i) {
    ::new (slots + i) Slot;
  }
  // Last, so that a table whose maker died is no table.
  header->magic.store(kMagic, std::memory_order_release);
  table.header_ = header;
  table.slots_ = slots;
  return {};
}

Status QuotaTable::attach(std::span<std::byte> memory, QuotaTable& table) noexcept {
  if (memory.size() < bytes_for(1)) {
    return {StatusCode::unsupported, "{0} bytes hold no table of quotas", memory.size()};
  }
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(Header) != 0) {
    return {StatusCode::unsupported, "a table of quotas needs memory aligned to {0} bytes", alignof(Header)};
  }
  auto* header = reinterpret_cast<Header*>(memory.data());
  if (header->magic.load(std::memory_order_acquire) != kMagic) {
    return {StatusCode::unsupported, "there is no table of quotas in this memory"};
  }
  if (header->layout != kLayout) {
    return {StatusCode::unsupported, "the table of quotas has layout {0}, this build uses layout {1}", header->layout,
            kLayout};
  }
  const std::uint64_t fitting = slots_in(memory.size());
  if (header->slot_count != fitting) {
    return {StatusCode::unsupported, "the table of quotas has {0} slots, this memory holds {1}", header->slot_count,
            fitting};
  }
  table.header_ = header;
  table.slots_ = reinterpret_cast<Slot*>(memory.data() + sizeof(Header));
  return {};
}

std::uint64_t QuotaTable::subject(std::string_view limit_name, std::span<const std::uint8_t> id) const noexcept {
  // The length before the name: ("ab", "c") and ("a", "bc") are two subjects.
  const std::uint64_t name_length = limit_name.size();
  SipHash hash(seed());
  hash.update(std::as_bytes(std::span(&name_length, 1)));
  hash.update(std::as_bytes(std::span(limit_name)));
  hash.update(std::as_bytes(id));
  return hash.finish();
}

SipKey QuotaTable::seed() const noexcept { return header_ == nullptr ? SipKey{} : header_->key; }

QuotaResult QuotaTable::take(const QuotaOrder& order, WallUs now) const noexcept {
  if (order.cost == 0 || header_ == nullptr) {
    return look(order, now);
  }
  Reach reach(*header_, slots_, quota_tag_of(order.subject), now);
  QuotaResult result;
  return run([&] { return try_take_quota(reach, order, now, Charge::if_left, result); }) ? result : QuotaResult{};
}

QuotaResult QuotaTable::look(const QuotaOrder& order, WallUs now) const noexcept {
  if (header_ == nullptr) {
    return {};
  }
  Reach reach(*header_, slots_, quota_tag_of(order.subject), now);
  QuotaResult result;
  return run([&] { return try_look_quota(reach, order, now, result); }) ? result : QuotaResult{};
}

bool QuotaTable::charge(const QuotaOrder& order, WallUs now) const noexcept {
  if (header_ == nullptr) {
    return false;
  }
  const QuotaOrder current = order_at(order, now);
  Reach reach(*header_, slots_, quota_tag_of(order.subject), now);
  QuotaResult result;
  return order.cost == 0 || run([&] { return try_take_quota(reach, current, now, Charge::whatever_is_left, result); });
}

void QuotaTable::give_back(const QuotaOrder& order, WallUs now) const noexcept {
  if (header_ != nullptr) {
    Reach reach(*header_, slots_, quota_tag_of(order.subject), now);
    run([&] { return try_give_back_quota(reach, order, now); });
  }
}

QuotaTable::Usage QuotaTable::usage(WallUs now) const noexcept {
  Usage usage;
  usage.slots = size();
  for (const Slot& slot : std::span(slots_, usage.slots)) {
    const WidePair word = slot.word.peek();
    usage.used += quota_tag(word) != 0 && !is_over(decode_use(word), now) ? 1 : 0;
  }
  return usage;
}

std::size_t QuotaTable::size() const noexcept { return header_ == nullptr ? 0 : header_->slot_count; }

bool QuotaTable::save(std::size_t slot, Saved& saved) const noexcept {
  WideWord& word = slots_[slot].word;
  while (true) {
    const WidePair pair = word.peek();
    if (quota_tag(pair) == 0 || is_quota_claim(pair)) {
      return false;
    }
    // The same is written again: that proves that the two words stood together.
    if (word.swap(pair, pair)) {
      saved = {pair.low, pair.high, static_cast<std::uint64_t>(end_of(decode_use(pair)).value)};
      return true;
    }
  }
}

bool QuotaTable::restore(const Saved& saved) const noexcept {
  const WidePair word{saved.low, saved.high};
  const std::uint64_t tag = quota_tag(word);
  if (header_ == nullptr || tag == 0 || decode_use(word).kind == kTentativeKind) {
    return false;
  }
  // With a clock that has not begun nothing is over yet, so only empty slots are free.
  Reach reach(*header_, slots_, tag, {0});
  return run([&] {
    Place place;
    const Turn turn = reach_place(reach, tag, place);
    if (turn != Turn::done || !reach.is_tentative(place.word)) {
      return turn;
    }
    return reach.swap(place.index, place.word, word) ? Turn::done : Turn::again;
  });
}

}  // namespace apikey
