// keyloader find: which keys stand in a text? It comes from standard input, because arguments are visible to everybody.
// Must never print what it read.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <set>

#include "apikey/key_form.hpp"
#include "names.hpp"
#include "secret.hpp"
#include "session.hpp"
#include "terminal.hpp"

namespace keyloader {
namespace {

constexpr std::size_t kBlock = 65'536;
// What stands around a key in a log, a configuration or JSON. Keys of others may hold all but these themselves.
constexpr std::string_view kAround = "\"'`,;=:()<>[]{}&?|\\";

bool is_space(char c) { return static_cast<unsigned char>(c) <= ' ' || c == '\x7f'; }

bool is_word_of_ours(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// What has our form: with the right checksum it was made by a keyloader, with a wrong one it was mistyped or changed.
struct Candidate {
  std::string_view text;
  bool is_whole = false;
};

// Ends with our form? Its prefix may follow other letters (`\nak_live_…`), so each beginning is tried.
std::optional<Candidate> own_key_at_end(std::string_view word) {
  const std::size_t env_end = word.rfind('_');
  const std::size_t prefix_end =
      env_end == std::string_view::npos || env_end == 0 ? env_end : word.rfind('_', env_end - 1);
  if (prefix_end == std::string_view::npos || prefix_end < apikey::kMinPrefixLength) {
    return std::nullopt;
  }
  const std::size_t longest = std::min(prefix_end, apikey::kMaxPrefixLength);
  std::optional<Candidate> mistyped;
  for (std::size_t length = longest; length >= apikey::kMinPrefixLength; --length) {
    const std::string_view text = word.substr(prefix_end - length);
    apikey::KeyParts parts;
    if (apikey::parse_key(text, parts)) {
      return Candidate{.text = text, .is_whole = true};
    }
    if (!mistyped && apikey::has_own_form(text)) {
      mistyped = Candidate{.text = text, .is_whole = false};
    }
  }
  return mistyped;
}

enum class Encoding { bytes, utf16_little, utf16_big };

// Windows writes UTF-16, mostly with a mark in front. Without one, every second byte of plain text is zero.
Encoding encoding_of(std::string_view begin) {
  using namespace std::string_view_literals;
  if (begin.starts_with("\xff\xfe"sv)) {
    return Encoding::utf16_little;
  }
  if (begin.starts_with("\xfe\xff"sv)) {
    return Encoding::utf16_big;
  }
  constexpr std::size_t two_units = 4;
  if (begin.size() < two_units) {
    return Encoding::bytes;
  }
  const std::array<bool, two_units> is_zero{begin[0] == 0, begin[1] == 0, begin[2] == 0, begin[3] == 0};
  return is_zero == std::array{false, true, false, true}   ? Encoding::utf16_little
         : is_zero == std::array{true, false, true, false} ? Encoding::utf16_big
                                                           : Encoding::bytes;
}

// Takes a text block by block and looks at every word of it.
class Finder {
 public:
  Finder(Registry& registry, DigestMethods& methods) : registry_(registry), methods_(methods) {}

  void read(std::string_view block) {
    if (!has_begun_ && !block.empty()) {
      constexpr std::string_view utf8_mark = "\xef\xbb\xbf";
      has_begun_ = true;
      encoding_ = encoding_of(block);
      block.remove_prefix(block.starts_with(utf8_mark) ? utf8_mark.size() : 0);
    }
    for (const char c : block) {
      if (encoding_ == Encoding::bytes) {
        take(c);
      } else if (!half_) {
        half_ = c;
      } else {
        const bool is_little = encoding_ == Encoding::utf16_little;
        const char low = is_little ? *half_ : c;
        const char high = is_little ? c : *half_;
        take(high == 0 && low > 0 ? low : ' ');  // what is not ASCII, such as “, ends a word
        half_.reset();
      }
    }
  }

  void finish() {
    end_word();
    apikey::wipe(std::span<char>{word_.data(), word_.size()});
  }

  std::vector<Key> found{};
  Texts doubts{};  // of our form, and not in the registry
  std::uint64_t words = 0;
  std::uint64_t unknown = 0;
  std::uint64_t mistyped = 0;

 private:
  static constexpr std::size_t kLongestWord = 65'536;
  static constexpr std::size_t kOverlap = 2 * apikey::kMaxKeyLength;
  static constexpr std::size_t kMaxLabels = apikey::kMaxPrefixLength + 1 + apikey::kMaxEnvLength;

  void take(char c) {
    if (is_space(c)) {
      end_word();
    } else {
      word_ += c;
      if (word_.size() == kLongestWord) {
        look_at_pieces();
        word_.erase(0, word_.size() - kOverlap);  // a key may go on behind it
      }
    }
    lines_ += c == '\n' ? 1U : 0U;
  }

  void end_word() {
    if (word_.empty()) {
      return;
    }
    ++words;
    if (!look_up(word_)) {
      look_at_pieces();
    }
    apikey::wipe(std::span<char>{word_.data(), word_.size()});
    word_.clear();
  }

  void look_at_pieces() {
    const std::string_view word = word_;
    std::size_t begin = 0;
    while (begin < word.size()) {
      const std::size_t end = std::min(word.find_first_of(kAround, begin), word.size());
      // `name=key`, where the key itself may hold what stands around keys.
      if (begin != 0) {
        look_up(trimmed(word.substr(begin)));
      }
      if (const std::string_view piece = word.substr(begin, end - begin); piece.size() != word.size()) {
        look_up(piece);
        // Base64 ends with `=`, which else parts a name from a value.
        if (const std::size_t padded = std::min(word.find_first_not_of('=', end), word.size()); padded != end) {
          look_up(word.substr(begin, padded - begin));
        }
      }
      begin = end + 1;
    }
    look_up(trimmed(word));
    look_between_quotes(word);
    look_for_our_form(word);
  }

  // What stands between quotes may hold all that else stands around keys.
  void look_between_quotes(std::string_view word) {
    for (const char quote : std::string_view{"\"'`"}) {
      for (std::size_t begin = word.find(quote); begin != std::string_view::npos;) {
        const std::size_t end = word.find(quote, begin + 1);
        if (end == std::string_view::npos) {
          break;
        }
        std::string_view text = word.substr(begin + 1, end - begin - 1);
        text.remove_suffix(text.ends_with('\\') ? 1 : 0);  // `\"key\"`: JSON in a string
        look_up(text);
        begin = end;
      }
    }
  }

  // A key of ours ends a fixed length behind a `_`, whatever follows it: `backup_KEY_old.txt`.
  void look_for_our_form(std::string_view word) {
    constexpr std::size_t tail = apikey::kSecretLength + apikey::kCheckLength;
    for (std::size_t at = word.find('_'); at != std::string_view::npos; at = word.find('_', at + 1)) {
      const std::size_t end = at + 1 + tail;
      if (end > word.size() || !apikey::is_base62(word.substr(at + 1, tail))) {
        continue;
      }
      std::size_t begin = at;
      while (begin > 0 && at - begin < kMaxLabels && is_word_of_ours(word[begin - 1])) {
        --begin;
      }
      const auto candidate = own_key_at_end(word.substr(begin, end - begin));
      // With a wrong checksum and more behind it, it is a longer key of somebody else.
      const bool goes_on = end < word.size() && apikey::is_base62(word.substr(end, 1));
      if (candidate && (candidate->is_whole || !goes_on) && !look_up(candidate->text)) {
        doubt(*candidate);
      }
    }
  }

  static std::string_view trimmed(std::string_view text) {
    const std::string_view ends = "\"'`,;()<>[]{}.!";
    const std::size_t begin = std::min(text.find_first_not_of(ends), text.size());
    text.remove_prefix(begin);
    return text.substr(0, text.find_last_not_of(ends) + 1);
  }

  bool look_up(std::string_view secret) {
    if (!apikey::is_presentable(secret)) {
      return false;
    }
    for (const std::string& method : methods_.names()) {
      const auto key = registry_.key(methods_.digest(method, secret));
      if (key && key->method == method) {
        if (ids_.insert(text_of(key->id)).second) {
          found.push_back(*key);
        }
        return true;
      }
    }
    return false;
  }

  void doubt(const Candidate& candidate) {
    std::array<char, apikey::kMaxPrefixLength + apikey::kMaxEnvLength + 6> buffer{};
    const std::string shape{apikey::redact_key(candidate.text, buffer)};
    if (candidate.is_whole) {
      ++unknown;
      doubts.push_back(fmt::format(
          "line {}: {} is a whole key, but not of this registry: the registry does not know it", lines_ + 1, shape));
    } else {
      ++mistyped;
      doubts.push_back(fmt::format(
          "line {}: {} has a wrong checksum: it was mistyped or changed, and no registry knows it", lines_ + 1, shape));
    }
  }

  Registry& registry_;
  DigestMethods& methods_;
  bool has_begun_ = false;
  Encoding encoding_ = Encoding::bytes;
  std::optional<char> half_{};  // the first byte of two, in UTF-16
  std::string word_;
  std::set<std::string> ids_;
  std::uint64_t lines_ = 0;
};

void read_all(Finder& finder) {
  const HiddenInput hidden;
  std::array<char, kBlock> block{};
  while (true) {
    const ssize_t got = read(STDIN_FILENO, block.data(), block.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw Failure("standard input cannot be read");
    }
    const std::span<char> bytes{block.data(), static_cast<std::size_t>(got)};
    finder.read({bytes.data(), bytes.size()});
    const bool is_typed = got > 0 && isatty(STDIN_FILENO) == 1;  // one line is enough
    apikey::wipe(bytes);
    if (got == 0 || is_typed) {
      return;
    }
  }
}

std::string line_of(const Key& key, std::string_view state) {
  return fmt::format("{} of {}, {}, {}{}{}", text_of(key.id), key.owner, key.env, state, key.name.empty() ? "" : ": ",
                     key.name);
}

std::string looked_at(const Finder& finder) {
  return fmt::format("looked at {} {}", finder.words, finder.words == 1 ? "word" : "words");
}

// What is so when the registry knows none of what was read.
[[noreturn]] void refuse(const Finder& finder) {
  if (finder.words == 0) {
    throw UsageError("there is no key on standard input; try `keyloader find < FILE`");
  }
  if (finder.doubts.empty()) {
    throw Failure(
        fmt::format("no key in this text that the registry knows, and none of our form; {}{}", looked_at(finder),
                    finder.words == 1 ? ". `keyloader key list --hint` finds a key by its last four characters, --ref "
                                        "by your own name for it"
                                      : ""));
  }
  throw Failure(fmt::format("{}; {}", fmt::join(finder.doubts, "; "), looked_at(finder)));
}

void find(const Session& session) {
  const DataDir directory = session.dir();
  const auto registry = directory.open_registry();
  DigestMethods methods(directory, *registry);
  Finder finder(*registry, methods);
  read_all(finder);
  finder.finish();
  if (finder.found.empty()) {
    refuse(finder);
  }
  const SuspendedOwners suspended(*registry, wall_clock());
  Texts lines;
  Json list = Json::array();
  for (const Key& key : finder.found) {
    lines.push_back(line_of(key, suspended.state_of(key)));
    list.push_back(to_json(key));
    list.back()["state"] = suspended.state_of(key);
    list.back()["owner_suspended"] = suspended.holds(key.owner);
  }
  session.report(fmt::format("{}", fmt::join(lines, "\n")), list.size() == 1 ? list.front() : list);
  Session::warn(finder.doubts);
  print_note(fmt::format("{}; {} of this registry", looked_at(finder), list.size()));
}

}  // namespace

void add_find_command(Command& app, Session& session) {
  Command command = app.add("find", "Tell which keys stand in a text on standard input");
  command.footer(
      "The text may be a key, a log, a configuration, anything. Every key of our form is found in it, and keys of\n"
      "another form that were imported, where they stand as a word or between quotes, commas and the like. It may be\n"
      "UTF-16, as Windows writes it. Nothing of the text is shown. With --json one object for one key, else a list. On "
      "a terminal it asks for a key.\n\n"
      "  keyloader find < leaked.txt\n"
      "  xclip -o | keyloader find --json | jq -r .id");
  command.read([&session] { find(session); });
}

}  // namespace keyloader
