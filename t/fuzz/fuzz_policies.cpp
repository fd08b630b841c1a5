// The region `policies` as keyloader reads it: any bytes, bytes behind a header that is true, and damage of a region
// that was published. What is read lies in the copy, and says what was written.
#include <cstring>
#include <vector>

#include "apikey/fold64.hpp"
#include "apikey/policies.hpp"
#include "fuzz_input.hpp"

using apikey::PolicyEntry;
using apikey::PolicyTag;

namespace {

using Bytes = std::span<const std::byte>;

// Where in the header they stand: policies.hpp.
constexpr std::size_t kSequenceAt = 0;
constexpr std::size_t kLengthAt = 24;
constexpr std::size_t kNeededAt = 32;
constexpr std::size_t kCheckAt = 40;

void store(std::span<std::byte> bytes, std::size_t at, std::uint64_t word) {
  std::memcpy(bytes.data() + at, &word, sizeof word);
}

bool lies_within(Bytes part, Bytes whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

// Entries alike; what the writer leaves zero in them may have been anything.
void require_same(const PolicyEntry& a, const PolicyEntry& b) {
  require(a.tag == b.tag);
  switch (a.tag) {
    case PolicyTag::location:
      require(a.place() == b.place() && a.depth() == b.depth() && a.flags() == b.flags());
      require(a.location_name() == b.location_name());
      break;
    case PolicyTag::scope_line:
    case PolicyTag::except_methods:
      require(a.methods() == b.methods());
      break;
    case PolicyTag::limit:
    case PolicyTag::fail_limit: {
      const apikey::PolicyLimitEntry x = a.limit();
      const apikey::PolicyLimitEntry y = b.limit();
      require(x.kind == y.kind && x.by == y.by && x.amount == y.amount && x.period_ns == y.period_ns);
      require(x.burst == y.burst && x.place == y.place && x.name == y.name);
      break;
    }
    default:
      require(a.text() == b.text());
  }
}

void write(apikey::PolicyWriter& writer, const PolicyEntry& entry) {
  switch (entry.tag) {
    case PolicyTag::location:
      writer.location(entry.place(), entry.depth(), entry.flags(), entry.location_name());
      break;
    case PolicyTag::scope_line:
    case PolicyTag::except_methods:
      writer.methods(entry.tag, entry.methods());
      break;
    case PolicyTag::limit:
      apikey::write_limit(writer, entry.limit());
      break;
    default:
      writer.entry(entry.tag, entry.value, {});
  }
}

std::vector<PolicyEntry> entries_of(Bytes bytes, bool& is_whole) {
  std::vector<PolicyEntry> all;
  PolicyEntry entry;
  Bytes rest = bytes;
  for (std::size_t before = rest.size(); apikey::next_policy(rest, entry); before = rest.size()) {
    require(rest.size() < before && lies_within(rest, bytes));
    require(lies_within(entry.value, bytes) && entry.text(SIZE_MAX).empty());
    all.push_back(entry);
  }
  is_whole = rest.empty();
  return all;
}

// What is written of entries that were read is read again: into just as much room, and none of it into less.
void write_again(const std::vector<PolicyEntry>& entries) {
  apikey::PolicyWriter counting({});
  for (const PolicyEntry& entry : entries) {
    write(counting, entry);
  }
  std::vector<std::byte> bytes(counting.needed());
  apikey::PolicyWriter writer(bytes);
  for (const PolicyEntry& entry : entries) {
    write(writer, entry);
  }
  require(writer.needed() == bytes.size());
  bool is_whole = false;
  const auto again = entries_of(bytes, is_whole);
  require(is_whole && again.size() == entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    require_same(entries[i], again[i]);
  }
  std::vector<std::byte> less(bytes.size() / 2);
  apikey::PolicyWriter cramped(less);
  for (const PolicyEntry& entry : entries) {
    write(cramped, entry);
  }
  require(cramped.needed() == bytes.size());
}

void read(Bytes region) {
  std::vector<std::byte> copy(region.size());
  apikey::PoliciesRead found;
  if (!apikey::read_policies(region, copy, found).ok()) {
    return;
  }
  require(lies_within(found.entries, copy));
  bool is_whole = false;
  write_again(entries_of(found.entries, is_whole));
}

// `entries` as a master publishes them.
void publish(std::vector<std::byte>& region, Bytes entries, std::uint64_t configuration) {
  apikey::publish_policies(region, entries, configuration, 1);
  std::vector<std::byte> copy(region.size());
  apikey::PoliciesRead found;
  const apikey::Status status = apikey::read_policies(region, copy, found);
  if (entries.size() > region.size() - apikey::kPoliciesHeaderSize) {
    require(status.code == apikey::StatusCode::refused);
    return;
  }
  require(status.ok() && found.configuration == configuration);
  require(std::equal(found.entries.begin(), found.entries.end(), entries.begin(), entries.end()));
}

// A header that is true of the first bytes behind it.
void make_true(std::span<std::byte> region, std::uint64_t length) {
  store(region, kSequenceAt, 2);
  store(region, kLengthAt, length);
  store(region, kNeededAt, length);
  apikey::Fold64 fold(length + sizeof(std::uint64_t));
  fold.word(0);  // the configuration's number
  fold.bytes(Bytes(region).subspan(apikey::kPoliciesHeaderSize, length));
  store(region, kCheckAt, fold.value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const std::uint8_t kind = input.byte() % 4;
  if (kind == 3) {
    std::vector<std::byte> region(apikey::kPoliciesHeaderSize + input.value<std::uint16_t>() % 1024);
    const auto flips = input.value<std::array<std::uint16_t, 2>>();
    const auto configuration = input.value<std::uint64_t>();
    publish(region, input.remaining_bytes(), configuration);
    for (const std::uint16_t flip : flips) {
      region[flip / 8U % region.size()] ^= static_cast<std::byte>(1U << (flip % 8U));
    }
    read(region);
    return 0;
  }
  const std::uint64_t length = kind == 2 ? input.value<std::uint16_t>() | 1U : 0;
  const Bytes content = input.remaining_bytes();
  // Long enough for its header, but for one kind.
  std::vector<std::byte> region((kind == 0 ? 0 : apikey::kPoliciesHeaderSize) + content.size());
  std::copy(content.begin(), content.end(), region.end() - static_cast<std::ptrdiff_t>(content.size()));
  if (kind != 0) {
    make_true(region, length == 0 ? content.size() : length % (content.size() + 1));
  }
  read(region);
  return 0;
}
