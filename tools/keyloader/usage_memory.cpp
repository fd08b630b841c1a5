// Reading the table of usage in node memory, and freeing in it what was collected. Called by usage_collect.cpp.
// Must never write more than the core's own acknowledge() does, and only into the file that was read.
#include "usage_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "file_descriptor.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kSlotsAtOnce = std::size_t{1} << 18U;
constexpr auto kMaxCount = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

// A file that was replaced is read until its last worker has ended; its counts go on in the one that took its place.
std::string place_of(const Node& node) {
  const std::filesystem::path& state = node.place().state;
  const std::string id = state.stem().string();
  return (state.parent_path() / (id.substr(0, id.find('~')) + state.extension().string())).string();
}

// The file, mapped for writing while this lives.
class Writable {
 public:
  explicit Writable(const Node& node) {
    const FileDescriptor fd(open(node.place().state.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    struct stat found {};
    if (!fd.is_open() || fstat(fd.get(), &found) != 0) {
      problem_ = fmt::format("{}: {}", node.place().state.string(), strerrordesc_np(errno));
      return;
    }
    const auto size = static_cast<std::size_t>(found.st_size);
    if (!S_ISREG(found.st_mode) || size != node.memory().size()) {
      problem_ = "another nginx has taken its place";
      return;
    }
    void* const start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (start == MAP_FAILED) {  // NOLINT(performance-no-int-to-ptr)
      problem_ = fmt::format("{} cannot be mapped: {}", node.place().state.string(), strerrordesc_np(errno));
      return;
    }
    bytes_ = {static_cast<std::byte*>(start), size};
    apikey::NodeMemory memory;
    if (!apikey::attach_node(bytes_, memory).ok() || memory.instance() != node.memory().instance()) {
      problem_ = "another nginx has taken its place";
      return;
    }
    table_ = usage_table(memory);
  }
  ~Writable() {
    if (!bytes_.empty()) {
      munmap(bytes_.data(), bytes_.size());
    }
  }
  Writable(const Writable&) = delete;
  Writable& operator=(const Writable&) = delete;

  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] const apikey::UsageTable& table() const { return table_; }

 private:
  std::span<std::byte> bytes_;
  apikey::UsageTable table_;
  std::string problem_;
};

bool can_be(const apikey::UsageRow& row) {
  return std::all_of(row.counters.begin(), row.counters.end(), [](std::uint64_t count) { return count <= kMaxCount; });
}

}  // namespace

UsageMemory::UsageMemory(const Node& node) : node_(node), table_(usage_table(node.memory())), place_(place_of(node)) {}

UsagePage UsageMemory::read(std::uint64_t from) {
  const apikey::UsageHead head = table_.head();
  UsagePage page{
      .instance = head.instance,
      .created = head.created,
      .now = wall_clock(),
      .acknowledged_to = head.acknowledged == 0 ? 0 : static_cast<Seconds>(head.acknowledged + 1) * apikey::kUsageHour,
      .unplaced = head.unplaced};
  if (page.created < 0 || page.created > page.now + apikey::kUsageHour || head.unplaced > kMaxCount) {
    throw Failure(fmt::format("{} has counts that cannot be: they were begun at {}", name(), time_text(page.created)));
  }
  for (const apikey::UsageGap& gap : std::span(head.gaps).first(head.gap_count)) {
    page.gaps.emplace_back(gap.from, gap.to);
  }
  const std::size_t size = table_.size();
  const std::size_t begin = std::min<std::size_t>(from, size);
  const std::size_t end = begin + std::min(kSlotsAtOnce, size - begin);
  apikey::UsageRow row;
  for (std::size_t slot = begin; slot < end; ++slot) {
    if (!table_.save(slot, row)) {
      continue;
    }
    if (!can_be(row)) {
      throw Failure(fmt::format("{} has counts that cannot be, in row {}; nothing of them was kept", name(), row.row));
    }
    page.rows.push_back({.instance = head.instance,
                         .row = row.row,
                         .key = row.key,
                         .owner = row.owner,
                         .hour = static_cast<Seconds>(row.hour) * apikey::kUsageHour,
                         .counters = row.counters});
  }
  if (end < size) {
    page.next = end;
  }
  return page;
}

std::string UsageMemory::acknowledge(const UsageInstance& instance, Seconds to) {
  const Writable writable(node_);
  if (!writable.problem().empty()) {
    return writable.problem();
  }
  if (writable.table().head().instance != instance) {
    return "these counts are of another instance";
  }
  const auto hour = static_cast<std::uint64_t>(to / apikey::kUsageHour - 1);
  return writable.table().acknowledge(hour, {wall_clock()})
             ? std::string{}
             : "that hour did not end ten minutes ago, so counts may still come to it";
}

bool UsageMemory::may_acknowledge() const {
  return faccessat(AT_FDCWD, node_.place().state.c_str(), W_OK, AT_EACCESS) == 0;
}

}  // namespace keyloader
