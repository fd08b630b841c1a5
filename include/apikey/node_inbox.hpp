// The inbox beside node memory: what others than nginx's processes want of them. keyloader writes it, workers read it
// and mark what they have used. It is hostile to both: what is used is copied first, and nothing in it can do more than
// let a snapshot in that whoever may write it could have published, or forget usage that may be collected.
//
//   offset size meaning
//        0    8 magic "AKINBOX1", written last · 8 4 version = 1 · 12 4 zero
//       16   16 instance of the node memory it belongs to
//       32   96 zero
//      128 2048 16 permissions of 128 bytes:
//                 0 8 state: 0 free, 1 being written, 2 granted, 3 used · 8 32 seal of the one snapshot that is let in
//                40 16 id of its registry · 56 8 its generation · 64 8 key of the store's row · 72 8 when, microseconds
//                since 1970 · 80 48 zero
//     2176    8 the last hour of usage that is to be forgotten, counted from 1970; 0: none. Written last
//     2184   16 instance of the usage table it is meant for
// The rest of its 65,536 bytes is zero.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "apikey/meta.hpp"
#include "apikey/node_memory.hpp"
#include "apikey/seal.hpp"
#include "apikey/status.hpp"
#include "apikey/usage_table.hpp"

namespace apikey {

inline constexpr std::size_t kInboxSize = 65'536;
inline constexpr std::size_t kInboxPermissions = 16;

// To take a snapshot that would be refused as one of another registry, or an older one. For one file in one store,
// once.
struct Permission {
  SealHash seal{};
  RegistryId registry_id{};
  std::uint64_t generation = 0;
  std::uint64_t store = 0;  // StoreRow::key
  std::uint64_t granted_us = 0;

  // The same file for the same store, whenever it was granted.
  [[nodiscard]] bool is_for_same(const Permission& other) const noexcept {
    return seal == other.seal && registry_id == other.registry_id && generation == other.generation &&
           store == other.store;
  }
};

class Inbox {
 public:
  Inbox() noexcept = default;  // attached to nothing: there is no permission, none can be given

  // In the place of a used one, or of the oldest, if none is free. RETURNS: false when it is attached to nothing, or
  // others write at the same time.
  [[nodiscard]] bool grant(const Permission& permission) const noexcept;
  // Of `wanted` everything but the time counts. RETURNS: when it was granted; 0: no such permission is left.
  [[nodiscard]] std::uint64_t find(const Permission& wanted) const noexcept;
  // Uses the permission up. RETURNS: false when somebody else has.
  [[nodiscard]] bool use(const Permission& wanted) const noexcept;
  // Uses up every permission of that store that was granted at this moment or before: its file, or a later one, has
  // been taken, and an earlier one is not to come back by it.
  void withdraw(std::uint64_t store, std::uint64_t granted_us) const noexcept;

  // All hours of that usage table up to this one are stored elsewhere. The last wish counts. RETURNS: false when it is
  // attached to nothing.
  [[nodiscard]] bool ask_to_forget(const UsageInstance& instance, std::uint64_t hour) const noexcept;
  // RETURNS: the hour; 0: nobody has asked for it, of this table.
  [[nodiscard]] std::uint64_t hour_to_forget(const UsageInstance& instance) const noexcept;

 private:
  friend Status format_inbox(std::span<std::byte> memory, const NodeInstance& instance, Inbox& inbox) noexcept;
  friend Status attach_inbox(std::span<std::byte> memory, const NodeInstance& instance, Inbox& inbox) noexcept;
  struct Slot;
  struct File;
  [[nodiscard]] Slot* find_slot(const Permission& wanted, Permission& found) const noexcept;
  File* file_ = nullptr;
};

// REQUIRES: 8-byte aligned, zeroed memory of kInboxSize bytes.
Status format_inbox(std::span<std::byte> memory, const NodeInstance& instance, Inbox& inbox) noexcept;
// RETURNS: damaged when it is none, refused when it belongs to another node memory.
Status attach_inbox(std::span<std::byte> memory, const NodeInstance& instance, Inbox& inbox) noexcept;

}  // namespace apikey
