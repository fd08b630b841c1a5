// Reading the state file of earlier versions: a header of one page, a quarter of the rest for quotas, the rest for
// usage. Its layout never changes any more, so it is written down here by offsets.
#include "ngx_http_apikey_legacy.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "apikey/fold64.hpp"
#include "apikey/little_endian.hpp"

namespace apikey::nginx {
namespace {

constexpr std::uint64_t kMagic = 0x4554415453594b41;  // "AKYSTATE" in memory
constexpr std::size_t kHeaderSize = 4096;
constexpr std::size_t kLayoutAt = 8;
constexpr std::size_t kSizeAt = 16;
constexpr std::size_t kSupersededAt = 80;

constexpr std::uint64_t make_layout() noexcept {
  Fold64 fold(4 * sizeof(std::uint64_t));
  for (const std::uint64_t word : {std::uint64_t{1}, std::uint64_t{160}, std::uint64_t{1}, std::uint64_t{1}}) {
    fold.word(word);
  }
  return fold.value();
}

bool attach(LegacyState& legacy) noexcept {
  const std::span<std::byte> memory = legacy.memory;
  if (memory.size() <= kHeaderSize || load_le<std::uint64_t>(memory, 0) != kMagic ||
      load_le<std::uint64_t>(memory, kLayoutAt) != make_layout() ||
      load_le<std::uint64_t>(memory, kSizeAt) != memory.size()) {
    return false;
  }
  const std::span<std::byte> rest = memory.subspan(kHeaderSize);
  const std::size_t quotas = rest.size() / 4 / 128 * 128;
  return QuotaTable::attach(rest.first(quotas), legacy.tables.quotas).ok() &&
         UsageTable::attach(rest.subspan(quotas), legacy.tables.usage).ok();
}

void unmap(void* data) noexcept {
  auto& legacy = *static_cast<LegacyState*>(data);
  if (!legacy.memory.empty()) {
    munmap(legacy.memory.data(), legacy.memory.size());
  }
}

std::span<std::byte> map_if_ours(const char* path) noexcept {
  const int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat found {};
  void* memory = MAP_FAILED;
  if (fd >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_uid == geteuid() && found.st_nlink == 1 &&
      (found.st_mode & 07777U) == (S_IRUSR | S_IWUSR) && found.st_size > 0) {
    memory = mmap(nullptr, static_cast<std::size_t>(found.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (fd >= 0) {
    close(fd);
  }
  return memory == MAP_FAILED ? std::span<std::byte>()
                              : std::span(static_cast<std::byte*>(memory), static_cast<std::size_t>(found.st_size));
}

}  // namespace

LegacyState* find_legacy_state(ngx_pool_t* pool, const ngx_str_t& id) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, sizeof(LegacyState));
  if (cleanup == nullptr) {
    return nullptr;
  }
  auto* legacy = ::new (cleanup->data) LegacyState{};
  cleanup->handler = unmap;
  constexpr std::string_view begin = "/dev/shm/apikey-";
  constexpr std::string_view suffix = ".v1";
  legacy->path.data = static_cast<u_char*>(ngx_pnalloc(pool, begin.size() + id.len + suffix.size() + 1));
  if (legacy->path.data == nullptr) {
    return nullptr;
  }
  u_char* end = ngx_sprintf(legacy->path.data, "/dev/shm/apikey-%V.v1", &id);
  *end = '\0';
  legacy->path.len = static_cast<std::size_t>(end - legacy->path.data);
  legacy->memory = map_if_ours(text_of(legacy->path.data));
  return attach(*legacy) ? legacy : nullptr;
}

void remove_legacy_state(const LegacyState& legacy) noexcept {
  static_cast<std::atomic<std::uint64_t>*>(static_cast<void*>(legacy.memory.data() + kSupersededAt))->store(1);
  static_cast<void>(unlink(text_of(legacy.path.data)));
}

}  // namespace apikey::nginx
