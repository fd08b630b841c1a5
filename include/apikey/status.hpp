// The result of everything that can fail without being a refusal of a key.
// Used by all of the core; keyloader and the adapter turn it into a sentence with describe().
// Never carries heap memory, never carries a presented key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace apikey {

enum class StatusCode : std::uint8_t {
  ok,
  bad_value,    // what somebody wrote (a rate, a CIDR) cannot be understood
  absent,       // the thing is not there (yet)
  unreadable,   // the operating system said no; `error` holds errno
  not_trusted,  // wrong owner or mode
  damaged,      // bytes that contradict themselves
  unsupported,  // whole, but of a version or kind this build does not read
  refused,      // whole, but not to be taken: another registry's, older, shrunken
  failed,       // anything else of ours
};

// `text` is a static sentence in which {0} and {1} stand for `a` and `b`:
//   {StatusCode::refused, "generation {0} is older than generation {1} in service", 12, 17}
struct [[nodiscard]] Status {
  StatusCode code = StatusCode::ok;
  const char* text = "";
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  int error = 0;  // errno, 0 when the operating system was not involved

  [[nodiscard]] bool ok() const noexcept { return code == StatusCode::ok; }
};

// Writes the sentence into `out`, cut off at its end, without a terminating zero.
// RETURNS: the part of `out` that was written. strerror text is left to the caller (`error`).
std::string_view describe(const Status& status, std::span<char> out) noexcept;

}  // namespace apikey
