// Node memory and its inbox: any bytes, and any preamble that is almost right. What attaches lies within the memory,
// and every row of it is read.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "apikey/node_inbox.hpp"
#include "apikey/node_memory.hpp"
#include "fuzz_input.hpp"

namespace {

constexpr std::size_t kSize = std::size_t{512} << 10U;
constexpr std::array kRegions = {
    apikey::NodeRegionSpec{apikey::NodeRegion::head, apikey::NodeHead::kVersion, sizeof(apikey::NodeHead)},
    apikey::NodeRegionSpec{apikey::NodeRegion::workers, apikey::kWorkerRowsVersion,
                           apikey::node_rows_size(sizeof(apikey::WorkerRow), 3)},
    apikey::NodeRegionSpec{apikey::NodeRegion::stores, apikey::kStoreRowsVersion,
                           apikey::node_rows_size(sizeof(apikey::StoreRow), apikey::kNodeStores)},
};

std::span<std::byte> memory() {
  static void* mapped = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(mapped != MAP_FAILED);
  return {static_cast<std::byte*>(mapped), kSize};
}

bool lies_within(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void read_all(std::span<std::byte> bytes) {
  apikey::NodeMemory node;
  if (!apikey::attach_node(bytes, node).ok()) {
    return;
  }
  apikey::NodeRegionSpec region;
  for (std::size_t i = 0; node.region_at(i, region); ++i) {
    require(lies_within(node.region(region.kind, region.version), bytes));
  }
  apikey::StoreReport store;
  apikey::Adoption::Holder holder;
  for (std::size_t i = 0; node.read_store(i, store); ++i) {
    require(store.path().size() <= apikey::kStorePathSize && store.methods().size() <= apikey::kStoreWordsSize);
    for (std::size_t n = 0; store.adoption().holder(n, store.adopted.active.change, holder); ++n) {
      require(n < apikey::kMaxHolders);
    }
    apikey::Refusal refusal;
    if (store.adoption().last_refusal(refusal)) {
      require(refusal.result < apikey::kAdoptionResultCount && refusal.text().size() <= refusal.sentence.size());
    }
    require(store.adopted.lack.name().size() <= store.adopted.lack.text.size());
  }
  apikey::WorkerReport worker;
  for (std::size_t i = 0; node.read_worker(i, worker); ++i) {
    require(worker.acks[0].state <= apikey::AckState::unchecked);
  }
}

void read_inbox(std::span<std::byte> bytes) {
  apikey::Inbox inbox;
  if (apikey::attach_inbox(bytes.first(apikey::kInboxSize), {1, 2}, inbox).ok()) {
    apikey::Permission permission;
    static_cast<void>(inbox.find(permission));
    static_cast<void>(inbox.grant(permission));
    inbox.withdraw(0, 0);
    static_cast<void>(inbox.use(permission));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const std::span<std::byte> all = memory();
  std::memset(all.data(), 0, all.size());
  const std::size_t laid_out = apikey::node_size(kRegions);
  const std::uint8_t kind = input.byte();
  if (kind % 3 == 0) {
    apikey::Inbox inbox;
    require(apikey::format_inbox(all.first(apikey::kInboxSize), {1, 2}, inbox).ok());
  } else {
    apikey::NodeMemory node;
    require(apikey::format_node(all.first(laid_out), {.regions = kRegions}, node).ok());
    apikey::finish_node(node);
  }
  // Words of the input at places of the input; most of them in the preamble or where rows begin.
  for (auto rest = input.remaining_bytes(); rest.size() >= 10; rest = rest.subspan(10)) {
    const std::size_t place = std::to_integer<std::size_t>(rest[0]) << 8U | std::to_integer<std::size_t>(rest[1]);
    const std::size_t at = (place % 2 == 0 ? place % 4096 : place * 8) % (laid_out - 8) / 8 * 8;
    std::memcpy(all.data() + at, rest.data() + 2, sizeof(std::uint64_t));
  }
  if (kind % 3 == 0) {
    read_inbox(all);
  } else {
    read_all(all.first(laid_out));
  }
  return 0;
}
