// Survives SIGBUS in mapped snapshots (memory=mapped): a page that the file no longer has is replaced by a page of
// zeros, on which no check of ours holds, so that the request is answered with `unavailable`.
// Called when a mapping of a file begins and ends. Never jumps out of the handler; any other SIGBUS ends the process
// as it would have without us.
#pragma once

#include <cstddef>
#include <span>

namespace apikey::nginx {

// From here to unguard() a vanished page in `mapping` is survived. RETURNS: false when all places are taken or the
// handler cannot be installed: then do not use the mapping.
[[nodiscard]] bool guard(std::span<const std::byte> mapping) noexcept;
void unguard(std::span<const std::byte> mapping) noexcept;

// While one lives, every vanished page of this process is survived: for liblmdb's own short mapping of the file.
class GuardAll {
 public:
  GuardAll() noexcept;
  ~GuardAll();
  GuardAll(const GuardAll&) = delete;
  GuardAll& operator=(const GuardAll&) = delete;
};

}  // namespace apikey::nginx
