// Sealing: a private copy of an LMDB file gets its exact length, its index and its seal page.
#include "publish/snapshot_sealer.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "apikey/pages.hpp"
#include "apikey/verify.hpp"
#include "publish/owned.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_store.hpp"

namespace apikey::publish {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeadSize = std::size_t{2} * 32768;  // both LMDB headers, at the largest page size
constexpr std::uint64_t kMaxExtension = std::uint64_t{1} << 30;

// Every process that has an LMDB environment open holds a shared lock on the first byte of its lock file.
Status check_unused(const fs::path& lock_file) {
  const OwnedFd fd(::open(lock_file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.is_open()) return errno == ENOENT ? Status{} : os_failure("the lock file beside it cannot be opened");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  if (::fcntl(fd.get(), F_GETLK, &lock) != 0) return os_failure("the lock file beside it cannot be asked");
  if (lock.l_type == F_UNLCK) return {};
  return {StatusCode::refused, "process {0} has the file open; let it close the file first",
          static_cast<std::uint64_t>(lock.l_pid)};
}

Status check_nobody_has(const fs::path& file) {
  const Status status = check_unused(file.string() + "-lock");
  if (!status.ok() || file.filename() != "data.mdb") return status;
  return check_unused(file.parent_path() / "lock.mdb");
}

bool read_fully(int fd, std::span<std::byte> buffer, std::size_t& size) {
  size = 0;
  while (size < buffer.size()) {
    const ssize_t got = ::pread(fd, buffer.data() + size, buffer.size() - size, static_cast<off_t>(size));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  return true;
}

// How long LMDB's part of the file is to be: up to the last page, whatever the writer left behind it.
Status wanted_length(int fd, std::uint64_t& length) {
  std::vector<std::byte> head(kHeadSize);
  std::size_t size = 0;
  if (!read_fully(fd, head, size)) return os_failure("the file cannot be read");
  LmdbHeader header;
  const Status status = read_lmdb_header(std::span(head).first(size), header);
  if (!status.ok()) return status;
  struct stat info {};
  if (::fstat(fd, &info) != 0) return os_failure("the file cannot be looked at");
  length = (header.last_page + 1) * header.page_size;
  const auto present = static_cast<std::uint64_t>(info.st_size);
  if (length > present && length - present > kMaxExtension) {
    return {StatusCode::damaged, "the last page ends at byte {0}, the file at byte {1}", length, present};
  }
  return {};
}

Status copy(int in, int out, std::uint64_t length) {
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (std::uint64_t at = 0; at < length;) {
    const std::size_t step = std::min<std::uint64_t>(buffer.size(), length - at);
    const ssize_t got = ::pread(in, buffer.data(), step, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_failure("the file cannot be read");
    if (got == 0) break;  // shorter than its last page: zeros, which ftruncate adds
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = ::write(out, buffer.data() + done, static_cast<std::size_t>(got - done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return os_failure("the copy cannot be written");
      done += put;
    }
    at += static_cast<std::uint64_t>(got);
  }
  return ::ftruncate(out, static_cast<off_t>(length)) == 0 ? Status{} : os_failure("the copy cannot get its length");
}

Status copy_lmdb_part(const fs::path& in, int out) {
  const OwnedFd fd(::open(in.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.is_open()) {
    return errno == ENOENT ? Status{StatusCode::absent, "there is no such file", 0, 0, ENOENT}
                           : os_failure("the file cannot be opened");
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return os_failure("the file cannot be looked at");
  if (!S_ISREG(info.st_mode)) return {StatusCode::not_trusted, "this is no regular file"};
  std::uint64_t length = 0;
  const Status status = wanted_length(fd.get(), length);
  return status.ok() ? copy(fd.get(), out, length) : status;
}

Status check_unsealed(const fs::path& path, Seal& seal) {
  MappedFile file;
  Status status = file.open(path);
  if (!status.ok()) return status;
  std::vector<std::uint64_t> scratch(verify_scratch_words(file.bytes().size()));
  Meta meta;
  status = verify_unsealed(file.bytes(), scratch, {}, meta);
  if (!status.ok()) return status;
  LmdbHeader header;
  status = read_lmdb_header(file.bytes(), header);
  if (!status.ok()) return status;
  seal = Seal{};
  seal.format = meta.format;
  seal.page_size = header.page_size;
  seal.length = file.bytes().size() + header.page_size;
  seal.generation = meta.generation;
  seal.base = meta.base;
  if (EVP_Digest(file.bytes().data(), file.bytes().size(), seal.sha256.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    return {StatusCode::failed, "libcrypto cannot compute SHA-256"};
  }
  return {};
}

Status seal_copy(const fs::path& in, const fs::path& temporary, int fd, Seal& seal) {
  Status status = copy_lmdb_part(in, fd);
  Seal unused;
  if (status.ok()) status = check_unsealed(temporary, unused);
  if (status.ok()) status = add_index(temporary);
  if (status.ok()) status = add_seal(temporary, seal);
  Verified verified;
  if (status.ok()) status = verify_file(temporary, verified);
  if (status.ok() && ::fsync(fd) != 0) return os_failure("the sealed file cannot be synced");
  return status;
}

}  // namespace

Status add_seal(const std::filesystem::path& path, Seal& seal) {
  const OwnedFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.is_open()) return os_failure("the new snapshot cannot be opened");
  std::uint64_t length = 0;
  Status status = wanted_length(fd.get(), length);
  if (!status.ok()) return status;
  if (::ftruncate(fd.get(), static_cast<off_t>(length)) != 0) return os_failure("the snapshot cannot get its length");
  status = check_unsealed(path, seal);
  if (!status.ok()) return status;
  std::vector<std::byte> page(seal.page_size);
  encode_seal(seal, page);
  const ssize_t written = ::pwrite(fd.get(), page.data(), page.size(), static_cast<off_t>(length));
  return written == static_cast<ssize_t>(page.size()) ? Status{} : os_failure("the seal cannot be written");
}

Status seal_file(const std::filesystem::path& in, const std::filesystem::path& out, Seal& seal) {
  std::error_code ignored;
  if (fs::equivalent(in, out, ignored)) {
    return {StatusCode::refused, "a file is not sealed in place; name another one for the sealed copy"};
  }
  Status status = check_nobody_has(in);
  if (!status.ok()) return status;
  fs::path temporary;
  int raw = -1;
  status = make_temporary_beside(out, temporary, raw);
  if (!status.ok()) return status;
  const OwnedFd fd(raw);
  status = seal_copy(in, temporary, fd.get(), seal);
  if (status.ok() && ::rename(temporary.c_str(), out.c_str()) != 0) {
    status = os_failure("the sealed file cannot get its name");
  }
  if (!status.ok()) {
    (void)::unlink(temporary.c_str());
    return status;
  }
  return sync_directory(out.has_parent_path() ? out.parent_path() : fs::path("."));
}

}  // namespace apikey::publish
