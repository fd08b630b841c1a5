// From what a client sent to the one key it presented, or to the reason why there is none (rows 2 and 3 of the table).
// Nothing is copied: results are views into the request's memory or into a buffer of the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "apikey/key_form.hpp"

namespace apikey {

enum class SourceKind : std::uint8_t { header, scheme, bearer, basic, query, cookie, protocol, variable };

enum class Format : std::uint8_t {
  strict,  // our own form with a right checksum, nothing else
  any,     // 8-256 presentable bytes; what has our whole form needs a right checksum all the same
};

enum class Found : std::uint8_t {
  none,       // the source is empty
  foreign,    // something that is not ours (a JWT): neither judged nor hidden
  malformed,  // meant as a key and wrong
  key,
};

// Judges one value of one source. Shared sources (scheme, bearer, basic, cookie) may carry what is somebody else's:
// under `strict` a value that does not have our whole form, under `any` a bearer value with two dots. Malformed is what
// remains and, under `strict`, is not our form with a right checksum; under `any`, a value that is not presentable (too
// short, too long, bytes a header cannot carry) or has our whole form and a wrong checksum.
[[nodiscard]] Found judge_credential(SourceKind kind, Format format, std::string_view value) noexcept;

// Gathers what the sources gave. Two that differ are malformed; the same key twice, from two sources, is one key.
class Presented {
 public:
  void add(Found found, std::string_view value) noexcept;
  [[nodiscard]] Found found() const noexcept { return found_; }  // none, malformed or key
  [[nodiscard]] std::string_view key() const noexcept { return key_; }

 private:
  Found found_ = Found::none;
  std::string_view key_;
};

// Value of an Authorization header → what stands behind `<scheme> `; empty when the scheme, compared ignoring case, is
// another one.
[[nodiscard]] std::string_view scheme_token(std::string_view authorization, std::string_view scheme) noexcept;

struct Judged {
  Found found = Found::none;
  std::string_view value;
};

// Decodes the `user:password` of Authorization: Basic and judges the key in it: the password if the user name is empty
// or does not have our form while the password does, else the user name (`curl -u key:`). Two of our form that differ
// are malformed. RETURNS: a value in `buffer`; none when it is not base64, has no colon or does not fit (RFC 7617).
inline constexpr std::size_t kBasicBufferSize = 2 * kMaxKeyLength + 8;
[[nodiscard]] Judged judge_basic(Format format, std::string_view token, std::span<char> buffer) noexcept;

// Iterates over the values of one name in a query string or Cookie header, in order. Names are compared as nginx's own
// $arg_ and $cookie_ do, ignoring case; in a query also percent-decoded, and in a Cookie header a name may follow a
// comma. `whole` is what has to be cut out to hide it: the pair with one separator.
struct NamedValue {
  std::string_view value;  // as it stands, not decoded
  std::string_view whole;
};
[[nodiscard]] bool next_in_query(std::string_view& rest, std::string_view name, NamedValue& found) noexcept;
[[nodiscard]] bool next_in_cookie(std::string_view& rest, std::string_view name, NamedValue& found) noexcept;
// The same for the members of a Sec-WebSocket-Protocol list that begin with `prefix`; the value is what follows it.
[[nodiscard]] bool next_in_protocols(std::string_view& rest, std::string_view prefix, NamedValue& found) noexcept;

// RETURNS: whether both are the same but for the case of A-Z.
[[nodiscard]] bool is_same_ignoring_case(std::string_view a, std::string_view b) noexcept;

// Percent-decodes into `buffer`; a view of `text` itself when there is nothing to decode. RETURNS: false when an escape
// is broken or the result does not fit.
[[nodiscard]] bool percent_decode(std::string_view text, std::span<char> buffer, std::string_view& decoded) noexcept;

}  // namespace apikey
