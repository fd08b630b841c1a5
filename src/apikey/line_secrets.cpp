// One pass over a line; at each character the three things that may begin there are tried.
// Called before a line is logged or handed on. Never reads past the line, whatever the client wrote.
#include "apikey/line_secrets.hpp"

#include "apikey/key_form.hpp"

namespace apikey {
namespace {

constexpr std::string_view kSeparators = "?&; ";
constexpr std::string_view kValueEnds = "& \t\r\n";
constexpr std::size_t kShortestForm = kMinPrefixLength + 3 + kSecretLength + kCheckLength;

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Reads a line character by character, with escapes decoded. A broken escape is the characters it is made of.
class Decoded {
 public:
  Decoded(std::string_view line, std::size_t at) noexcept : line_(line), at_(at) {}

  [[nodiscard]] std::size_t at() const noexcept { return at_; }
  [[nodiscard]] bool is_at_end() const noexcept { return at_ >= line_.size(); }

  // REQUIRES: not at the end.
  [[nodiscard]] char peek() const noexcept {
    const int code = escape();
    return code < 0 ? line_[at_] : static_cast<char>(code);
  }
  void skip() noexcept { at_ += escape() < 0 ? 1 : 3; }

  // Takes as many characters as `is_wanted` takes, at most `most`. RETURNS: how many.
  template <typename Predicate>
  std::size_t skip_while(Predicate is_wanted, std::size_t most) noexcept {
    std::size_t count = 0;
    for (; count < most && !is_at_end() && is_wanted(peek()); ++count) {
      skip();
    }
    return count;
  }

  bool skip_text(std::string_view text, char (*fold)(char)) noexcept {
    for (const char c : text) {
      if (is_at_end() || fold(peek()) != fold(c)) {
        return false;
      }
      skip();
    }
    return true;
  }

 private:
  [[nodiscard]] int escape() const noexcept {
    if (line_[at_] != '%' || at_ + 2 >= line_.size()) {
      return -1;
    }
    const int high = hex_digit(line_[at_ + 1]);
    const int low = hex_digit(line_[at_ + 2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
  }

  std::string_view line_;
  std::size_t at_;
};

char to_lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
char as_it_is(char c) noexcept { return c; }

bool is_label_char(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_base62_char(char c) noexcept { return is_label_char(c) || (c >= 'A' && c <= 'Z'); }

std::string_view part(std::string_view line, std::size_t begin, std::size_t end) noexcept {
  return {line.data() + begin, end - begin};
}

bool value_at(std::string_view line, std::size_t at, std::string_view name, std::string_view& found) noexcept {
  Decoded text(line, at);
  if (!text.skip_text(name, to_lower) || !text.skip_text("=", as_it_is)) {
    return false;
  }
  const std::size_t begin = text.at();
  const std::size_t end = line.find_first_of(kValueEnds, begin);
  found = part(line, begin, end == std::string_view::npos ? line.size() : end);
  return !found.empty();
}

bool key_at(std::string_view line, std::size_t at, std::string_view key, std::string_view& found) noexcept {
  Decoded text(line, at);
  if (key.empty() || !text.skip_text(key, as_it_is)) {
    return false;
  }
  found = part(line, at, text.at());
  return true;
}

// `<prefix>_<env>_` and 38 base62 characters, or more: one that was typed with a character too many is one all the
// same.
bool own_form_at(std::string_view line, std::size_t at, std::string_view& found) noexcept {
  Decoded text(line, at);
  if (text.skip_while(is_label_char, kMaxPrefixLength) < kMinPrefixLength || !text.skip_text("_", as_it_is) ||
      text.skip_while(is_label_char, kMaxEnvLength) == 0 || !text.skip_text("_", as_it_is) ||
      text.skip_while(is_base62_char, line.size()) < kSecretLength + kCheckLength) {
    return false;
  }
  found = part(line, at, text.at());
  return true;
}

}  // namespace

bool find_secret(std::string_view line, std::size_t begin, const LineSecrets& secrets,
                 std::string_view& found) noexcept {
  const bool may_have_form =
      line.size() - begin >= kShortestForm && line.find_first_of("_%", begin) != std::string_view::npos;
  char before = begin == 0 ? kSeparators.front() : line[begin - 1];
  for (Decoded text(line, begin); !text.is_at_end(); text.skip()) {
    const std::size_t at = text.at();
    const bool is_behind_separator = kSeparators.find(before) != std::string_view::npos;
    before = text.peek();
    if (is_behind_separator) {
      for (const std::string_view name : secrets.names) {
        if (value_at(line, at, name, found)) {
          return true;
        }
      }
    }
    if (key_at(line, at, secrets.key, found) || (may_have_form && own_form_at(line, at, found))) {
      return true;
    }
  }
  return false;
}

bool find_copy(std::string_view line, std::size_t begin, std::string_view key, std::string_view& found) noexcept {
  for (Decoded text(line, begin); !text.is_at_end(); text.skip()) {
    if (key_at(line, text.at(), key, found)) {
      return true;
    }
  }
  return false;
}

}  // namespace apikey
