// Mapping, verifying and going through snapshot files.
#include "publish/snapshot_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "apikey/pages.hpp"
#include "publish/owned.hpp"

namespace apikey::publish {
namespace {

using KeyVisitor = std::function<bool(const Digest&, const Record&)>;

struct Visit {
  const KeyVisitor* visit;
  Status status;
  bool has_ended = false;
};

bool on_entry(void* context, std::string_view database, std::span<const std::byte> key, std::uint64_t offset,
              std::span<const std::byte> value) noexcept {
  auto& self = *static_cast<Visit*>(context);
  if (database != "keys") return true;
  Digest digest;
  Record record;
  if (key.size() == digest.bytes.size())
    std::copy_n(std::as_bytes(key).begin(), key.size(), std::as_writable_bytes(std::span(digest.bytes)).begin());
  if (key.size() != digest.bytes.size() || !decode_record(digest, value, record)) {
    self.status = {StatusCode::damaged, "the record at byte {0} does not check", offset};
    return false;
  }
  self.has_ended = !(*self.visit)(digest, record);
  return !self.has_ended;
}

}  // namespace

Status MappedFile::open(const std::filesystem::path& path) noexcept {
  close();
  OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.is_open()) {
    if (errno == ENOENT) return {StatusCode::absent, "there is no such file", 0, 0, ENOENT};
    return os_failure("the file cannot be opened");
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return os_failure("the file cannot be looked at");
  if (!S_ISREG(info.st_mode)) return {StatusCode::not_trusted, "this is no regular file"};
  if (info.st_size <= 0) return {StatusCode::damaged, "the file is empty"};
  const auto size = static_cast<std::size_t>(info.st_size);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return os_failure("the file cannot be mapped");
  bytes_ = {static_cast<const std::byte*>(memory), size};
  fd_ = fd.release();
  return {};
}

void MappedFile::close() noexcept {
  if (!bytes_.empty()) (void)::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (fd_ >= 0) (void)::close(fd_);
  bytes_ = {};
  fd_ = -1;
}

Status SnapshotFile::open(const std::filesystem::path& path, Lookup lookup) {
  snapshot_.close();
  Status status = file_.open(path);
  if (!status.ok()) return status;
  std::vector<std::uint64_t> scratch(verify_scratch_words(bytes().size()));
  status = verify_snapshot(bytes(), scratch, {}, verified_);
  return status.ok() ? snapshot_.open(file_.fd(), bytes(), lookup) : status;
}

Status SnapshotFile::for_each_key(const KeyVisitor& visit) const {
  const auto sealed = bytes().first(bytes().size() - seal().page_size);
  LmdbHeader header;
  Status status = read_lmdb_header(sealed, header);
  if (!status.ok()) return status;
  std::vector<std::uint64_t> scratch(page_bitmap_words(header));
  Visit state{&visit, {}};
  status = walk_pages(sealed, header, scratch, {&state, on_entry, nullptr});
  if (!state.status.ok()) return state.status;
  return state.has_ended ? Status{} : status;
}

Status verify_file(const std::filesystem::path& path, Verified& summary) {
  MappedFile file;
  const Status status = file.open(path);
  if (!status.ok()) return status;
  std::vector<std::uint64_t> scratch(verify_scratch_words(file.bytes().size()));
  const Status verdict = verify_snapshot(file.bytes(), scratch, {}, summary);
  summary.meta.builder = {};
  summary.meta.digests = {};
  summary.meta.features = {};
  return verdict;
}

}  // namespace apikey::publish
