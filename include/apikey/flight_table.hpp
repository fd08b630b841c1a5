// Who has how many requests in flight: a fixed table over memory of the caller's, shared by processes, without a lock.
// What a killed worker held is found by its leases and let go of.
//
// Each subject has a slot of 16 bytes with its count, each request in flight a lease of 8 bytes with its process
// (flight_set.hpp). How a subject gets a slot, and why it never stands in two: claim_set.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/siphash.hpp"
#include "apikey/status.hpp"

namespace apikey {

inline constexpr std::uint64_t kMaxConcurrency = 60'000;

// Who enters. One per process: the row it holds in node memory (node_rows.hpp), whose lock tells whether it lives.
struct FlightHolder {
  std::uint32_t row = 0;   // < 2^22
  std::uint16_t mark = 0;  // of its ticket: differs between processes that get the same row one after the other
};

// A request in flight, to be given to leave() once.
struct FlightLease {
  std::uint32_t index = UINT32_MAX;
  [[nodiscard]] bool is_held() const noexcept { return index != UINT32_MAX; }
};

struct FlightResult {
  enum class Status : std::uint8_t { admitted, refused, full };  // full: neither slot nor lease is free
  Status status = Status::full;
  std::uint64_t remaining = 0;  // after this
};

class FlightTable {
 public:
  static constexpr std::size_t kReach = 32;
  static constexpr std::uint64_t kLayout = 1;

  FlightTable() noexcept = default;  // attached to nothing: everything is `full`

  // Room for as many subjects and four times as many requests.
  [[nodiscard]] static std::size_t bytes_for(std::size_t slots) noexcept;  // header included
  static Status format(std::span<std::byte> memory, const SipKey& seed, FlightTable& table) noexcept;
  static Status attach(std::span<std::byte> memory, FlightTable& table) noexcept;

  [[nodiscard]] std::uint64_t subject(std::string_view limit_name, std::span<const std::uint8_t> id) const noexcept;

  // One more request of the subject, unless `most` are in flight.
  [[nodiscard]] FlightResult enter(std::uint64_t subject, std::uint64_t most, FlightHolder holder,
                                   FlightLease& lease) const noexcept;
  [[nodiscard]] FlightResult look(std::uint64_t subject, std::uint64_t most) const noexcept;
  void leave(FlightLease& lease, FlightHolder holder) const noexcept;

  // Lets go of what processes held that are no more. `self`: the caller; its row with another mark is such a process.
  // RETURNS: how many leases. May be called by several at once, and again after a caller that died in it. What a
  // process was just changing when it died stays while somebody else is stopped in the middle of a change to the same
  // slot.
  std::uint64_t release_dead(FlightHolder self, bool (*is_alive)(FlightHolder holder)) const noexcept;

  struct Usage {
    std::uint64_t slots = 0;
    std::uint64_t subjects = 0;
    std::uint64_t leases = 0;  // room for so many requests
    std::uint64_t in_flight = 0;
  };
  [[nodiscard]] Usage usage() const noexcept;  // reads the whole table

 private:
  struct Header;
  struct Slot;
  struct LeaseWord;
  class View;
  [[nodiscard]] static std::uint64_t slots_in(std::size_t bytes) noexcept;
  void lay_over(std::span<std::byte> memory) noexcept;
  Header* header_ = nullptr;
  Slot* slots_ = nullptr;
  LeaseWord* leases_ = nullptr;
};

}  // namespace apikey
