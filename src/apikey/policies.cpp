// Writing and reading the region `policies`. What is read may have been written by anybody: see policies.hpp.
#include "apikey/policies.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#include "apikey/fold64.hpp"
#include "apikey/little_endian.hpp"

namespace apikey {
namespace {

constexpr std::size_t kEntryHeaderSize = 4;
constexpr std::size_t kMaxValueSize = 65535;
constexpr std::size_t kLocationSize = 4;
constexpr std::size_t kLimitSize = 40;
constexpr std::size_t kFailLimitSize = 24;
constexpr int kMostReads = 64;  // of one region that is being written

struct Header {
  std::atomic<std::uint64_t> sequence;
  std::uint64_t configuration;
  std::uint64_t written_us;
  std::uint64_t length;
  std::uint64_t needed;
  std::uint64_t check;
  std::array<std::uint64_t, 2> reserved;
};
static_assert(sizeof(Header) == kPoliciesHeaderSize);

std::uint64_t check_of(std::span<const std::byte> entries, std::uint64_t configuration) noexcept {
  Fold64 fold(entries.size() + sizeof configuration);
  fold.word(configuration);
  fold.bytes(entries);
  return fold.value();
}

// RETURNS: how many bytes a value of this tag has at least; SIZE_MAX for a tag that this build does not know.
std::size_t least_size(std::uint16_t tag) noexcept {
  switch (static_cast<PolicyTag>(tag)) {
    case PolicyTag::location:
      return kLocationSize;
    case PolicyTag::scope_line:
    case PolicyTag::except_methods:
      return sizeof(std::uint32_t);
    case PolicyTag::limit:
      return kLimitSize;
    case PolicyTag::fail_limit:
      return kFailLimitSize;
    case PolicyTag::server:
    case PolicyTag::server_name:
    case PolicyTag::listen:
    case PolicyTag::realm:
    case PolicyTag::store:
    case PolicyTag::store_path:
    case PolicyTag::source:
    case PolicyTag::scope:
    case PolicyTag::environment:
    case PolicyTag::required_limit:
      return 0;
  }
  return SIZE_MAX;
}

bool is_known_value(const PolicyEntry& entry) noexcept {
  return entry.tag != PolicyTag::location || static_cast<std::size_t>(entry.place()) < kPolicyPlaceCount;
}

}  // namespace

void PolicyWriter::put(std::span<const std::byte> bytes) noexcept {
  if (needed_ <= out_.size() && bytes.size() <= out_.size() - needed_) {
    std::copy(bytes.begin(), bytes.end(), out_.begin() + static_cast<std::ptrdiff_t>(needed_));
  }
  needed_ += bytes.size();
}

void PolicyWriter::entry(PolicyTag tag, std::span<const std::byte> fixed, std::string_view text) noexcept {
  text = text.substr(0, kMaxValueSize - fixed.size());
  std::array<std::byte, kEntryHeaderSize> header;
  store_le(header, 0, static_cast<std::uint16_t>(tag));
  store_le(header, 2, static_cast<std::uint16_t>(fixed.size() + text.size()));
  put(header);
  put(fixed);
  put(std::as_bytes(std::span(text)));
}

void PolicyWriter::methods(PolicyTag tag, std::uint32_t methods) noexcept {
  entry(tag, std::as_bytes(std::span(&methods, 1)), {});
}

void PolicyWriter::location(PolicyPlace place, std::uint8_t depth, std::uint16_t flags,
                            std::string_view name) noexcept {
  std::array<std::byte, kLocationSize> fixed{static_cast<std::byte>(place), static_cast<std::byte>(depth)};
  store_le(fixed, 2, flags);
  entry(PolicyTag::location, fixed, name);
}

void write_limit(PolicyWriter& writer, const PolicyLimitEntry& limit) noexcept {
  std::array<std::byte, kLimitSize> fixed{static_cast<std::byte>(limit.kind), static_cast<std::byte>(limit.by)};
  store_le(fixed, 8, limit.amount);
  store_le(fixed, 16, limit.period_ns);
  store_le(fixed, 24, limit.burst);
  store_le(fixed, 32, limit.place);
  writer.entry(PolicyTag::limit, fixed, limit.name);
}

std::string_view PolicyEntry::text(std::size_t from) const noexcept {
  const auto rest = value.subspan(std::min(from, value.size()));
  return {static_cast<const char*>(static_cast<const void*>(rest.data())), rest.size()};
}

std::uint32_t PolicyEntry::methods() const noexcept { return load_le<std::uint32_t>(value, 0); }
PolicyPlace PolicyEntry::place() const noexcept { return static_cast<PolicyPlace>(value[0]); }
std::uint8_t PolicyEntry::depth() const noexcept { return static_cast<std::uint8_t>(value[1]); }
std::uint16_t PolicyEntry::flags() const noexcept { return load_le<std::uint16_t>(value, 2); }
std::string_view PolicyEntry::location_name() const noexcept { return text(kLocationSize); }

PolicyLimitEntry PolicyEntry::limit() const noexcept {
  if (tag == PolicyTag::fail_limit) {
    return {.amount = load_le<std::uint64_t>(value, 0),
            .period_ns = load_le<std::uint64_t>(value, 8),
            .burst = load_le<std::uint64_t>(value, 16),
            .place = 0,
            .name = {}};
  }
  return {.kind = static_cast<std::uint8_t>(value[0]),
          .by = static_cast<std::uint8_t>(value[1]),
          .amount = load_le<std::uint64_t>(value, 8),
          .period_ns = load_le<std::uint64_t>(value, 16),
          .burst = load_le<std::uint64_t>(value, 24),
          .place = load_le<std::uint64_t>(value, 32),
          .name = text(kLimitSize)};
}

bool next_policy(std::span<const std::byte>& rest, PolicyEntry& entry) noexcept {
  while (rest.size() >= kEntryHeaderSize) {
    const auto tag = load_le<std::uint16_t>(rest, 0);
    const std::size_t size = load_le<std::uint16_t>(rest, 2);
    if (size > rest.size() - kEntryHeaderSize) {
      return false;
    }
    const std::size_t least = least_size(tag);
    const PolicyEntry found{static_cast<PolicyTag>(tag), rest.subspan(kEntryHeaderSize, size)};
    if (least != SIZE_MAX && (size < least || !is_known_value(found))) {
      return false;
    }
    rest = rest.subspan(kEntryHeaderSize + size);
    if (least != SIZE_MAX) {
      entry = found;
      return true;
    }
  }
  return false;
}

std::uint64_t policies_size(std::size_t needed) noexcept {
  return std::clamp(std::bit_ceil(2 * (needed + kPoliciesHeaderSize)), kMinPoliciesSize, kMaxPoliciesSize);
}

void publish_policies(std::span<std::byte> region, std::span<const std::byte> entries, std::uint64_t configuration,
                      std::uint64_t wall_us) noexcept {
  auto& header = *static_cast<Header*>(static_cast<void*>(region.data()));
  const bool fits = entries.size() <= region.size() - kPoliciesHeaderSize;
  const auto written = fits ? entries : std::span<const std::byte>{};
  const std::uint64_t sequence = header.sequence.load(std::memory_order_relaxed) | 1U;
  header.sequence.store(sequence, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  header.configuration = configuration;
  header.written_us = wall_us;
  header.length = written.size();
  header.needed = entries.size();
  header.check = check_of(written, configuration);
  std::copy(written.begin(), written.end(), region.begin() + kPoliciesHeaderSize);
  header.sequence.store(sequence + 1, std::memory_order_release);
}

Status read_policies(std::span<const std::byte> region, std::span<std::byte> out, PoliciesRead& read) noexcept {
  constexpr Status damaged{StatusCode::damaged, "what nginx says of its locations is damaged"};
  if (region.size() < kPoliciesHeaderSize || out.size() < region.size()) {
    return damaged;
  }
  for (int i = 0; i < kMostReads; ++i) {
    const auto& live = *static_cast<const Header*>(static_cast<const void*>(region.data()));
    const std::uint64_t sequence = live.sequence.load(std::memory_order_acquire);
    std::memcpy(out.data(), region.data(), region.size());
    std::atomic_thread_fence(std::memory_order_acquire);
    if (sequence == 0) {
      return {StatusCode::absent, "nginx has not said yet what its locations ask for"};
    }
    if (sequence % 2 != 0 || live.sequence.load(std::memory_order_relaxed) != sequence) {
      continue;
    }
    const std::span<const std::byte> copy = out.first(region.size());
    const auto length = load_le<std::uint64_t>(copy, offsetof(Header, length));
    const auto needed = load_le<std::uint64_t>(copy, offsetof(Header, needed));
    if (length > region.size() - kPoliciesHeaderSize) {
      return damaged;
    }
    if (length < needed) {
      return {StatusCode::refused, "what its locations ask for needs {0} bytes in node memory, which has room for {1}",
              needed, region.size() - kPoliciesHeaderSize};
    }
    const auto configuration = load_le<std::uint64_t>(copy, offsetof(Header, configuration));
    const auto entries = copy.subspan(kPoliciesHeaderSize, length);
    if (load_le<std::uint64_t>(copy, offsetof(Header, check)) != check_of(entries, configuration)) {
      continue;
    }
    read = {configuration, load_le<std::uint64_t>(copy, offsetof(Header, written_us)), entries};
    return {};
  }
  return damaged;
}

}  // namespace apikey
