// Granting, finding and using permissions. The state word alone says what a slot is; its other words are copied and
// compared between two looks at it.
#include "apikey/node_inbox.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <type_traits>

namespace apikey {
namespace {

constexpr std::uint64_t kMagic = 0x31584f424e494b41;  // "AKINBOX1" in memory
constexpr std::uint32_t kVersion = 1;

enum State : std::uint64_t { kFree = 0, kWriting = 1, kGranted = 2, kUsed = 3 };

constexpr std::size_t kWords = sizeof(Permission) / sizeof(std::uint64_t);
using Words = std::array<std::atomic<std::uint64_t>, kWords>;
static_assert(std::is_trivially_copyable_v<Permission> && sizeof(Permission) == 72);

Permission load(const Words& words) noexcept {
  std::array<std::uint64_t, kWords> values;
  std::transform(words.begin(), words.end(), values.begin(), [](const auto& word) { return word.load(); });
  Permission permission;
  std::memcpy(static_cast<void*>(&permission), values.data(), sizeof permission);
  return permission;
}

void store(const Permission& permission, Words& words) noexcept {
  std::array<std::uint64_t, kWords> values;
  std::memcpy(values.data(), &permission, sizeof permission);
  for (std::size_t i = 0; i < kWords; ++i) {
    words[i].store(values[i]);
  }
}

}  // namespace

struct Inbox::Slot {
  std::atomic<std::uint64_t> state;
  Words words;
  std::array<std::uint64_t, 6> reserved;
};

struct Inbox::File {
  std::atomic<std::uint64_t> magic;
  std::uint32_t version;
  std::uint32_t reserved;
  NodeInstance instance;
  std::array<std::uint64_t, 12> reserved_before_slots;
  std::array<Slot, kInboxPermissions> slots;
  std::atomic<std::uint64_t> forget_hour;
  std::array<std::atomic<std::uint64_t>, 2> forget_instance;
};

Inbox::Slot* Inbox::find_slot(const Permission& wanted, Permission& found) const noexcept {
  if (file_ == nullptr) {
    return nullptr;
  }
  for (Slot& slot : file_->slots) {
    if (slot.state.load() != kGranted) {
      continue;
    }
    found = load(slot.words);
    if (found.is_for_same(wanted) && slot.state.load() == kGranted) {
      return &slot;
    }
  }
  return nullptr;
}

bool Inbox::grant(const Permission& permission) const noexcept {
  if (file_ == nullptr) {
    return false;
  }
  // Free ones first, then used ones, then what a writer that died left, then the oldest.
  Slot* chosen = nullptr;
  std::uint64_t seen = kFree;
  for (const std::uint64_t wanted : {kFree, kUsed, kWriting}) {
    for (Slot& slot : file_->slots) {
      if (chosen == nullptr && slot.state.load() == wanted) {
        chosen = &slot;
        seen = wanted;
      }
    }
  }
  if (chosen == nullptr) {
    chosen = &*std::min_element(file_->slots.begin(), file_->slots.end(), [](const Slot& a, const Slot& b) {
      return load(a.words).granted_us < load(b.words).granted_us;
    });
    seen = kGranted;
  }
  if (!chosen->state.compare_exchange_strong(seen, kWriting)) {
    return false;
  }
  store(permission, chosen->words);
  std::uint64_t writing = kWriting;
  return chosen->state.compare_exchange_strong(writing, kGranted);
}

std::uint64_t Inbox::find(const Permission& wanted) const noexcept {
  Permission found;
  return find_slot(wanted, found) != nullptr ? found.granted_us : 0;
}

bool Inbox::use(const Permission& wanted) const noexcept {
  Permission found;
  Slot* slot = find_slot(wanted, found);
  std::uint64_t granted = kGranted;
  return slot != nullptr && slot->state.compare_exchange_strong(granted, kUsed);
}

void Inbox::withdraw(std::uint64_t store, std::uint64_t granted_us) const noexcept {
  if (file_ == nullptr) {
    return;
  }
  for (Slot& slot : file_->slots) {
    if (slot.state.load() != kGranted) {
      continue;
    }
    const Permission found = load(slot.words);
    std::uint64_t granted = kGranted;
    if (found.store == store && found.granted_us <= granted_us) {
      static_cast<void>(slot.state.compare_exchange_strong(granted, kUsed));
    }
  }
}

bool Inbox::ask_to_forget(const UsageInstance& instance, std::uint64_t hour) const noexcept {
  if (file_ == nullptr) {
    return false;
  }
  const auto words = std::bit_cast<std::array<std::uint64_t, 2>>(instance);
  file_->forget_hour.store(0);
  file_->forget_instance[0].store(words[0]);
  file_->forget_instance[1].store(words[1]);
  file_->forget_hour.store(hour);
  return true;
}

std::uint64_t Inbox::hour_to_forget(const UsageInstance& instance) const noexcept {
  if (file_ == nullptr) {
    return 0;
  }
  // The same hour before and after: what stands between was written with it.
  const std::uint64_t hour = file_->forget_hour.load();
  const std::array<std::uint64_t, 2> words{file_->forget_instance[0].load(), file_->forget_instance[1].load()};
  const bool is_whole = file_->forget_hour.load() == hour;
  return is_whole && std::bit_cast<UsageInstance>(words) == instance ? hour : 0;
}

Status format_inbox(std::span<std::byte> memory, const NodeInstance& instance, Inbox& inbox) noexcept {
  static_assert(sizeof(Inbox::Slot) == 128 && sizeof(Inbox::File) == 128 + 128 * kInboxPermissions + 24);
  static_assert(std::is_trivially_destructible_v<Inbox::File> && std::is_standard_layout_v<Inbox::File>);
  if (memory.size() != kInboxSize) {
    return {StatusCode::bad_value, "an inbox has {0} bytes, not {1}", kInboxSize, memory.size()};
  }
  auto* file = ::new (memory.data()) Inbox::File{};
  file->version = kVersion;
  file->instance = instance;
  file->magic.store(kMagic, std::memory_order_release);
  inbox.file_ = file;
  return {};
}

Status attach_inbox(std::span<std::byte> memory, const NodeInstance& instance, Inbox& inbox) noexcept {
  if (memory.size() != kInboxSize) {
    return {StatusCode::damaged, "an inbox has {0} bytes, not {1}", kInboxSize, memory.size()};
  }
  auto* file = static_cast<Inbox::File*>(static_cast<void*>(memory.data()));
  if (file->magic.load(std::memory_order_acquire) != kMagic || file->version != kVersion) {
    return {StatusCode::damaged, "it is not an inbox of version {0}", kVersion};
  }
  if (file->instance != instance) {
    return {StatusCode::refused, "it is the inbox of another node memory"};
  }
  inbox.file_ = file;
  return {};
}

}  // namespace apikey
