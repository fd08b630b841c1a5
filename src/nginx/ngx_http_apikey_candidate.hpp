// One file that may become the active snapshot: opened, judged by owner and mode, copied into sealed memory, verified.
// Runs in the verifying thread: calls nothing of nginx, logs nothing, allocates nothing from the heap.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "apikey/adoption.hpp"
#include "apikey/status.hpp"
#include "ngx_http_apikey_store.hpp"

namespace apikey::nginx {

// What the file system says of a path. Symbolic links are followed.
struct FileState {
  int error = 0;          // errno; 0: the file is there
  bool is_empty = false;  // a regular file without a byte: nobody has written it yet
  FileIdentity identity;
  std::uint64_t birth_ns = 0;  // of the inode; 0: the file system does not say
};
[[nodiscard]] FileState look_at(const char* path) noexcept;

// True for the same bytes: what changes when only a link to the file or its mode does is left out.
[[nodiscard]] bool is_same_content(const FileIdentity& a, const FileIdentity& b) noexcept;

// REQUIRES: `copy` is empty when examine() begins.
struct Candidate {
  // What to examine, and by which rules.
  const StoreConf* store = nullptr;
  const Adoption* adoption = nullptr;
  uid_t worker_user = 0;  // who must not be able to write the file; 0: nobody in particular
  std::uint64_t configuration = 0;
  bool is_for_copy = false;  // not to be judged: it is adopted, or another worker is at it, and a copy is wanted
  bool (*is_permitted)(const StoreConf& store, const AdoptedFile& file) noexcept = nullptr;
  void* context = nullptr;
  bool (*carry_on)(void* context) noexcept = nullptr;  // asked every MiB at most; false: give up

  // What came of it. `status` is ok: `adopted` and `copy` are filled, the caller owns the copy.
  Status status;
  AdoptedFile file;             // of a refused one as much as is known
  std::uint64_t audit_seq = 0;  // as in Meta; 0: it says nothing of the audit
  AuditHash audit_head{};
  Lack lack;                      // what nginx needs to decide by it and does not have; empty: nothing
  bool needs_permission = false;  // it may be adopted only by the permission that was found
  Copy copy;
};
void examine(Candidate& candidate) noexcept;

[[nodiscard]] AdoptionResult result_of(const Status& status) noexcept;

}  // namespace apikey::nginx
