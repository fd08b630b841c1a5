// Node memory: what is laid out is found again, and any bytes whatever are read without a step beside the mapping.
#include "apikey/node_memory.hpp"

#include <sys/mman.h>

#include <cstring>
#include <random>
#include <vector>

#include "cmocka_cpp.hpp"
#include "expect_text.hpp"

using namespace apikey;

namespace {

constexpr std::array kRegions = {
    NodeRegionSpec{NodeRegion::head, NodeHead::kVersion, sizeof(NodeHead)},
    NodeRegionSpec{NodeRegion::stores, kStoreRowsVersion, node_rows_size(sizeof(StoreRow), kNodeStores)},
    NodeRegionSpec{NodeRegion::workers, kWorkerRowsVersion, node_rows_size(sizeof(WorkerRow), 64)},
    NodeRegionSpec{NodeRegion::quotas, 1, 5000},
};

// Page-aligned and zeroed.
struct Mapping {
  explicit Mapping(std::size_t size)
      : bytes(static_cast<std::byte*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
              size) {}
  ~Mapping() { munmap(bytes.data(), bytes.size()); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::span<std::byte> bytes;
};

NodeSpec make_spec() {
  return {.regions = kRegions,
          .instance = {7, 8},
          .created_us = 1'800'000'000'000'000,
          .boot_id = "01234567-89ab-cdef-0123-456789abcdef",
          .module_version = "0.2.0",
          .server_version = "1.22.1"};
}

NodeMemory make(std::span<std::byte> bytes) {
  NodeMemory node;
  assert_true(format_node(bytes, make_spec(), node).ok());
  finish_node(node);
  return node;
}

void expect_code(std::span<std::byte> bytes, StatusCode code) {
  NodeMemory node;
  assert_int_equal(attach_node(bytes, node).code, code);
  assert_true(node.is_attached() == (code == StatusCode::ok));
}

template <typename T>
void put(std::span<std::byte> bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

void test_what_is_laid_out_is_found(void**) {
  const Mapping mapping(node_size(kRegions));
  make(mapping.bytes);
  NodeMemory node;
  assert_true(attach_node(mapping.bytes, node).ok());
  assert_true(node.consists_of(kRegions));
  expect_text(node.boot_id(), "01234567-89ab-cdef-0123-456789abcdef");
  expect_text(node.module_version(), "0.2.0");
  expect_text(node.server_version(), "1.22.1");
  assert_true((node.instance() == NodeInstance{7, 8}));
  assert_int_equal(node.store_count(), kNodeStores);
  assert_int_equal(node.worker_count(), 64);
  assert_int_equal(node.region(NodeRegion::quotas, 1).size(), 5000);
  assert_true(node.region(NodeRegion::quotas, 2).empty());
  assert_true(node.region(NodeRegion::usage, 1).empty());
  assert_false(node.is_superseded());
}

void test_the_bytes_are_as_drawn(void**) {
  const Mapping mapping(node_size(kRegions));
  const NodeMemory node = make(mapping.bytes);
  node.preamble().master_pid.store(4711);
  node.preamble().configurations.store(3);
  const auto text = [&](std::size_t offset, std::size_t size) {
    return std::string_view(reinterpret_cast<const char*>(mapping.bytes.data()) + offset, size);
  };
  const auto word = [&](std::size_t offset) {
    std::uint64_t value = 0;
    std::memcpy(&value, mapping.bytes.data() + offset, sizeof value);
    return value;
  };
  expect_text(text(0, 8), "AKNODE01");
  assert_int_equal(word(8), std::uint64_t{4} << 32U | 1);
  assert_int_equal(word(16), mapping.bytes.size());
  assert_int_equal(word(24), 7);
  assert_int_equal(word(40), node_layout(kRegions));
  assert_int_equal(word(48), 4711);
  expect_text(text(64, 8), "01234567");
  expect_text(text(128, 5), "0.2.0");
  expect_text(text(192, 6), "1.22.1");
  assert_int_equal(word(256), 3);
  assert_int_equal(word(1024), std::uint64_t{1} << 32U | 1);
  assert_int_equal(word(1024 + 8), 4096);
  assert_int_equal(word(1024 + 16), sizeof(NodeHead));
}

void test_unfinished_memory_is_none(void**) {
  const Mapping mapping(node_size(kRegions));
  expect_code(mapping.bytes, StatusCode::damaged);
  NodeMemory node;
  assert_true(format_node(mapping.bytes, make_spec(), node).ok());
  expect_code(mapping.bytes, StatusCode::damaged);
  finish_node(node);
  expect_code(mapping.bytes, StatusCode::ok);
}

void test_a_preamble_that_contradicts_itself_is_damaged(void**) {
  constexpr std::size_t first_region = 1024;
  const auto broken = [](std::size_t offset, auto value) {
    const Mapping mapping(node_size(kRegions));
    make(mapping.bytes);
    put(mapping.bytes, offset, value);
    expect_code(mapping.bytes, StatusCode::damaged);
  };
  broken(0, std::uint64_t{1});
  broken(12, std::uint32_t{65});
  broken(16, std::uint64_t{4096});
  broken(16, UINT64_MAX);
  broken(first_region + 8, std::uint64_t{0});          // over the preamble
  broken(first_region + 8, std::uint64_t{4097});       // not aligned
  broken(first_region + 8, UINT64_MAX - 4095);         // beyond the end
  broken(first_region + 16, UINT64_MAX);               // an end that overflows
  broken(first_region + 32 + 8, std::uint64_t{4096});  // over the region before
  const std::size_t stores = kNodePreambleSize + kNodeRegionAlignment;
  broken(stores, std::uint32_t{0});  // rows without a byte
  broken(stores, std::uint32_t{UINT32_MAX - 63});
  broken(stores + 4, std::uint32_t{33});
  broken(stores + 4, UINT32_MAX);
}

void test_other_versions_are_unsupported(void**) {
  const Mapping mapping(node_size(kRegions));
  make(mapping.bytes);
  put(mapping.bytes, 8, std::uint32_t{2});
  expect_code(mapping.bytes, StatusCode::unsupported);
  put(mapping.bytes, 8, std::uint32_t{1});
  put(mapping.bytes, 1024 + 32 + 4, std::uint32_t{2});  // rows of stores that mean something else
  expect_code(mapping.bytes, StatusCode::unsupported);
}

void test_unknown_regions_are_passed_over(void**) {
  const Mapping mapping(node_size(kRegions));
  make(mapping.bytes);
  put(mapping.bytes, 1024 + 3 * 32, std::uint32_t{77});
  NodeMemory node;
  assert_true(attach_node(mapping.bytes, node).ok());
  assert_false(node.consists_of(kRegions));
  NodeRegionSpec found;
  assert_true(node.region_at(3, found));
  assert_int_equal(static_cast<std::uint32_t>(found.kind), 77);
  assert_false(node.region_at(4, found));
}

// A newer module has longer rows, an older one shorter ones.
void test_rows_of_other_sizes_are_read(void**) {
  for (const std::size_t row_size : {sizeof(StoreRow) + 64, std::size_t{2048}}) {
    auto regions = kRegions;
    regions[1].size = node_rows_size(std::max(row_size, sizeof(StoreRow)), kNodeStores);
    const Mapping mapping(node_size(regions));
    NodeSpec spec = make_spec();
    spec.regions = regions;
    NodeMemory made;
    assert_true(format_node(mapping.bytes, spec, made).ok());
    finish_node(made);
    const std::size_t stores = kNodePreambleSize + kNodeRegionAlignment;
    put(mapping.bytes, stores, static_cast<std::uint32_t>(row_size));
    put(mapping.bytes, stores + 4, std::uint32_t{2});
    put(mapping.bytes, stores + kNodeRowsHeaderSize + row_size, std::uint64_t{99});
    NodeMemory node;
    assert_true(attach_node(mapping.bytes, node).ok());
    StoreReport report;
    assert_true(node.read_store(1, report));
    assert_int_equal(report.key, 99);
    assert_int_equal(report.adopted.change, 0);
    assert_false(node.read_store(2, report));
  }
}

// Whatever the workers' user may have left there: no read beyond the mapping (sanitizers), no endless one.
void test_random_bytes_are_survived(void**) {
  std::mt19937_64 random(20260731);
  const std::size_t size = node_size(kRegions);
  for (int round = 0; round < 300; ++round) {
    const Mapping mapping(size);
    make(mapping.bytes);
    const std::size_t begin = round % 3 == 0 ? 8 : round % 3 == 1 ? 1024 : kNodePreambleSize + kNodeRegionAlignment;
    const std::size_t count = 1 + random() % 400;
    for (std::size_t i = 0; i < count; ++i) {
      put(mapping.bytes, std::min(begin + random() % (round % 2 == 0 ? 300 : size), size - 8) / 8 * 8, random());
    }
    NodeMemory node;
    if (!attach_node(mapping.bytes, node).ok()) {
      continue;
    }
    StoreReport store;
    WorkerReport worker;
    for (std::size_t i = 0; node.read_store(i, store); ++i) {
      assert_true(store.path().size() <= kStorePathSize && store.name().size() <= kStoreNameSize);
    }
    for (std::size_t i = 0; node.read_worker(i, worker); ++i) {
      assert_true(worker.acks[0].state <= AckState::vetoed);
    }
    for (std::uint32_t kind = 0; kind < 16; ++kind) {
      const auto region = node.region(static_cast<NodeRegion>(kind), 1);
      assert_true(region.empty() || (region.data() >= mapping.bytes.data() &&
                                     region.data() + region.size() <= mapping.bytes.data() + mapping.bytes.size()));
    }
  }
}

void test_attached_to_nothing_there_is_nothing(void**) {
  const NodeMemory node;
  StoreReport store;
  WorkerReport worker;
  assert_false(node.read_store(0, store));
  assert_false(node.read_worker(0, worker));
  assert_true(node.region(NodeRegion::head, 1).empty());
  assert_int_equal(node.master_pid(), 0);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(test_what_is_laid_out_is_found),
      cmocka_unit_test(test_the_bytes_are_as_drawn),
      cmocka_unit_test(test_unfinished_memory_is_none),
      cmocka_unit_test(test_a_preamble_that_contradicts_itself_is_damaged),
      cmocka_unit_test(test_other_versions_are_unsupported),
      cmocka_unit_test(test_unknown_regions_are_passed_over),
      cmocka_unit_test(test_rows_of_other_sizes_are_read),
      cmocka_unit_test(test_random_bytes_are_survived),
      cmocka_unit_test(test_attached_to_nothing_there_is_nothing),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
