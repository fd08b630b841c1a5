// Laying out and attaching to node memory. Nothing in the file is believed: see node_memory.hpp.
#include "apikey/node_memory.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "apikey/fold64.hpp"

namespace apikey {
namespace {

constexpr std::uint64_t kMagic = 0x313045444f4e4b41;  // "AKNODE01" in memory
static_assert(std::endian::native == std::endian::little);

// The smallest rows any version has written: what is before the adoption, or before the acknowledgements.
constexpr std::size_t kMinRowSize = 128;

struct RowsHeader {
  std::uint32_t row_size;
  std::uint32_t rows;
  std::array<std::uint64_t, 7> reserved;
};
static_assert(sizeof(RowsHeader) == kNodeRowsHeaderSize);

constexpr std::uint64_t round_up(std::uint64_t size) noexcept {
  return (size + kNodeRegionAlignment - 1) / kNodeRegionAlignment * kNodeRegionAlignment;
}

bool is_aligned(std::span<const std::byte> memory) noexcept {
  return reinterpret_cast<std::uintptr_t>(memory.data()) % kNodeRegionAlignment == 0;
}

void put_text(NodeText& out, std::string_view text) noexcept {
  std::copy_n(text.begin(), std::min(text.size(), out.size()), out.begin());
}

const NodeRegionSpec* find_spec(std::span<const NodeRegionSpec> regions, NodeRegion kind) noexcept {
  const auto found = std::find_if(regions.begin(), regions.end(), [&](const auto& spec) { return spec.kind == kind; });
  return found == regions.end() ? nullptr : &*found;
}

// Empty rows of `row_size` bytes in as much of the region as they fill.
template <typename Row>
void format_rows(std::span<std::byte> region) noexcept {
  auto* header = ::new (region.data()) RowsHeader{};
  header->row_size = sizeof(Row);
  header->rows = static_cast<std::uint32_t>((region.size() - kNodeRowsHeaderSize) / sizeof(Row));
  for (std::size_t i = 0; i < header->rows; ++i) {
    ::new (region.data() + kNodeRowsHeaderSize + i * sizeof(Row)) Row{};
  }
}

}  // namespace

std::uint64_t node_size(std::span<const NodeRegionSpec> regions) noexcept {
  std::uint64_t size = kNodePreambleSize;
  for (const NodeRegionSpec& region : regions) {
    size += round_up(region.size);
  }
  return size;
}

std::uint64_t node_layout(std::span<const NodeRegionSpec> regions) noexcept {
  Fold64 fold(regions.size() * 2 * sizeof(std::uint64_t));
  for (const NodeRegionSpec& region : regions) {
    fold.word(static_cast<std::uint64_t>(region.kind) << 32U | region.version);
    fold.word(region.size);
  }
  return fold.value();
}

std::string_view NodeMemory::text_of(const NodeText& text) noexcept {
  return {text.data(), static_cast<std::size_t>(std::find(text.begin(), text.end(), '\0') - text.begin())};
}

NodePreamble& NodeMemory::preamble() const noexcept {
  return *static_cast<NodePreamble*>(static_cast<void*>(memory_.data()));
}

std::uint64_t NodeMemory::master_pid() const noexcept { return is_attached() ? preamble().master_pid.load() : 0; }

std::uint64_t NodeMemory::configurations() const noexcept {
  return is_attached() ? preamble().configurations.load() : 0;
}

bool NodeMemory::is_superseded() const noexcept { return is_attached() && preamble().is_superseded.load() != 0; }

bool NodeMemory::consists_of(std::span<const NodeRegionSpec> regions) const noexcept {
  if (!is_attached() || regions.size() != region_count_ || node_size(regions) != memory_.size()) {
    return false;
  }
  std::uint64_t offset = kNodePreambleSize;
  for (std::size_t i = 0; i < regions.size(); ++i) {
    const Region& found = regions_[i];
    if (found.spec.kind != regions[i].kind || found.spec.version != regions[i].version ||
        found.spec.size != regions[i].size || found.offset != offset) {
      return false;
    }
    offset += round_up(regions[i].size);
  }
  return stores_.row_size == sizeof(StoreRow) && stores_.count == kNodeStores &&
         workers_.row_size == sizeof(WorkerRow) && workers_.count != 0;
}

std::span<std::byte> NodeMemory::region(NodeRegion kind, std::uint32_t version) const noexcept {
  for (const Region& region : std::span(regions_).first(region_count_)) {
    if (region.spec.kind == kind && region.spec.version == version) {
      return memory_.subspan(region.offset, region.spec.size);
    }
  }
  return {};
}

bool NodeMemory::region_at(std::size_t i, NodeRegionSpec& found) const noexcept {
  if (i >= region_count_) {
    return false;
  }
  found = regions_[i].spec;
  return true;
}

bool NodeMemory::read_store(std::size_t i, StoreReport& report) const noexcept {
  return i < stores_.count && read_store_row(stores_.first + i * stores_.row_size, stores_.row_size, report);
}

bool NodeMemory::read_worker(std::size_t i, WorkerReport& report) const noexcept {
  if (i >= workers_.count) {
    return false;
  }
  read_worker_row(workers_.first + i * workers_.row_size, workers_.row_size, report);
  return true;
}

NodeHead& NodeMemory::head() const noexcept {
  return *static_cast<NodeHead*>(static_cast<void*>(region(NodeRegion::head, NodeHead::kVersion).data()));
}

StoreRow& NodeMemory::store_row(std::size_t i) const noexcept {
  return *static_cast<StoreRow*>(static_cast<void*>(stores_.first + i * sizeof(StoreRow)));
}

WorkerRow& NodeMemory::worker_row(std::size_t i) const noexcept {
  return *static_cast<WorkerRow*>(static_cast<void*>(workers_.first + i * sizeof(WorkerRow)));
}

Status NodeMemory::take_regions(const NodePreamble& copy) noexcept {
  std::uint64_t end = kNodePreambleSize;
  for (std::size_t i = 0; i < copy.region_count; ++i) {
    const NodePreamble::Region& found = copy.regions[i];
    const bool lies_behind = found.offset >= end && found.offset % kNodeRegionAlignment == 0;
    if (!lies_behind || found.offset > memory_.size() || found.size > memory_.size() - found.offset) {
      return {StatusCode::damaged, "its region {0} does not lie within its {1} bytes", i, memory_.size()};
    }
    end = found.offset + found.size;
    regions_[i] = {{static_cast<NodeRegion>(found.kind), found.version, found.size}, found.offset};
  }
  region_count_ = copy.region_count;
  return {};
}

Status NodeMemory::take_rows(NodeRegion kind, std::uint32_t version, std::size_t max_rows, Rows& rows) const noexcept {
  const std::span<std::byte> bytes = region(kind, version);
  if (bytes.size() < kNodeRowsHeaderSize) {
    return {StatusCode::unsupported, "its region of kind {0} has no rows of version {1}",
            static_cast<std::uint64_t>(kind), version};
  }
  RowsHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const std::uint64_t capacity = bytes.size() - kNodeRowsHeaderSize;
  const bool fits = header.row_size >= kMinRowSize && header.row_size % 64 == 0 && header.rows <= max_rows &&
                    std::uint64_t{header.row_size} * header.rows <= capacity;
  if (!fits) {
    return {StatusCode::damaged, "its {0} rows of {1} bytes do not fit their region", header.rows, header.row_size};
  }
  rows = {bytes.data() + kNodeRowsHeaderSize, header.row_size, header.rows};
  return {};
}

Status format_node(std::span<std::byte> memory, const NodeSpec& spec, NodeMemory& node) noexcept {
  if (!is_aligned(memory) || spec.regions.size() > kMaxNodeRegions || memory.size() != node_size(spec.regions)) {
    return {StatusCode::bad_value, "{0} bytes are not what these regions need", memory.size()};
  }
  auto* preamble = ::new (memory.data()) NodePreamble{};
  preamble->version = kNodePreambleVersion;
  preamble->region_count = static_cast<std::uint32_t>(spec.regions.size());
  preamble->size = memory.size();
  preamble->instance = spec.instance;
  preamble->layout = node_layout(spec.regions);
  preamble->created_us = spec.created_us;
  put_text(preamble->boot_id, spec.boot_id);
  put_text(preamble->module_version, spec.module_version);
  put_text(preamble->server_version, spec.server_version);
  std::uint64_t offset = kNodePreambleSize;
  for (std::size_t i = 0; i < spec.regions.size(); ++i) {
    const NodeRegionSpec& region = spec.regions[i];
    preamble->regions[i] = {static_cast<std::uint32_t>(region.kind), region.version, offset, region.size, 0};
    const auto bytes = memory.subspan(offset, region.size);
    if (region.kind == NodeRegion::stores && bytes.size() >= kNodeRowsHeaderSize) {
      format_rows<StoreRow>(bytes);
    } else if (region.kind == NodeRegion::workers && bytes.size() >= kNodeRowsHeaderSize) {
      format_rows<WorkerRow>(bytes);
    }
    offset += round_up(region.size);
  }
  // Attached to before it says that it is node memory: whoever finds the file of a maker who died finds none.
  preamble->magic.store(kMagic, std::memory_order_relaxed);
  const Status attached = attach_node(memory, node);
  preamble->magic.store(0, std::memory_order_relaxed);
  return attached.ok() && find_spec(spec.regions, NodeRegion::head) == nullptr
             ? Status{StatusCode::bad_value, "node memory needs a head"}
             : attached;
}

void finish_node(const NodeMemory& node) noexcept { node.preamble().magic.store(kMagic, std::memory_order_release); }

Status attach_node(std::span<std::byte> memory, NodeMemory& node) noexcept {
  if (memory.size() < kNodePreambleSize || !is_aligned(memory)) {
    return {StatusCode::damaged, "its {0} bytes are too few for node memory", memory.size()};
  }
  NodePreamble copy;
  std::memcpy(static_cast<void*>(&copy), memory.data(), sizeof copy);
  if (copy.magic.load(std::memory_order_relaxed) != kMagic) {
    return {StatusCode::damaged, "it is not node memory, or was not finished"};
  }
  if (copy.version != kNodePreambleVersion) {
    return {StatusCode::unsupported, "its preamble has version {0}, this build reads version {1}", copy.version,
            kNodePreambleVersion};
  }
  if (copy.size != memory.size() || copy.region_count > kMaxNodeRegions) {
    return {StatusCode::damaged, "its {0} bytes are not the {1} that its preamble says", memory.size(), copy.size};
  }
  NodeMemory found;
  found.memory_ = memory;
  Status status = found.take_regions(copy);
  if (status.ok()) {
    status = found.take_rows(NodeRegion::stores, kStoreRowsVersion, kNodeStores, found.stores_);
  }
  if (status.ok()) {
    status = found.take_rows(NodeRegion::workers, kWorkerRowsVersion, kMaxNodeWorkers, found.workers_);
  }
  if (!status.ok()) {
    return status;
  }
  found.instance_ = copy.instance;
  found.created_us_ = copy.created_us;
  found.boot_id_ = copy.boot_id;
  found.module_version_ = copy.module_version;
  found.server_version_ = copy.server_version;
  node = found;
  return {};
}

}  // namespace apikey
