// Secrets while they exist: making a key, reading one from standard input, peppers and their files.
// Called by init, pepper, key create, find, import. A secret is never an argument of the process, never in a message,
// and wiped as soon as its digest is known.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apikey/digest.hpp"
#include "data_dir.hpp"

namespace keyloader {

// Text that is wiped when it goes. Kept in a vector, as a moved-from short string would leave its characters behind.
class SecretText {
 public:
  // Takes the text away from `text`, which is wiped.
  explicit SecretText(std::string&& text) : text_(text.begin(), text.end()) {
    apikey::wipe(std::span<char>{text.data(), text.size()});
    text.clear();
  }
  ~SecretText() { apikey::wipe(std::span<char>{text_}); }
  SecretText(const SecretText&) = delete;
  SecretText& operator=(const SecretText&) = delete;
  SecretText(SecretText&& other) noexcept = default;
  SecretText& operator=(SecretText&&) = delete;
  [[nodiscard]] std::string_view view() const { return {text_.data(), text_.size()}; }

 private:
  std::vector<char> text_;
};

void fill_random(std::span<std::uint8_t> bytes);

// A new key `<prefix>_<env>_<secret><check>`: 32 base62 characters, each equally likely.
[[nodiscard]] SecretText make_secret_key(std::string_view prefix, std::string_view env);
// The last characters of a key, by which people tell keys apart. Empty where the key is so short, or so odd, that they
// are better kept back.
[[nodiscard]] std::string hint_of(std::string_view key);
inline constexpr std::size_t kHintLength = 4;
// Four visible characters of ASCII.
[[nodiscard]] bool is_valid_hint(std::string_view hint);

[[nodiscard]] apikey::KeyId new_key_id();

// All that is read from `fd` less one line end; from a terminal one line. Throws for nothing at all, and for more than
// a key can be. `where`: "on standard input".
[[nodiscard]] SecretText read_secret(int fd, std::string_view where);
// On a terminal it asks.
[[nodiscard]] SecretText read_secret_from_stdin();

// The ways of turning a key into its digest that this registry knows; peppers are read from their files when first
// used.
class DigestMethods {
 public:
  DigestMethods(const DataDir& directory, Registry& registry);
  // What a new key gets: `hmac-sha256:<current pepper>`, or `sha256` where there is no pepper.
  [[nodiscard]] const std::string& current() const { return current_; }
  [[nodiscard]] bool knows(std::string_view method) const;
  [[nodiscard]] apikey::Digest digest(const std::string& method, std::string_view key);
  [[nodiscard]] std::vector<std::string> names() const;  // newest first, `sha256` last

 private:
  DataDir directory_;
  std::string current_;
  std::vector<std::string> pepper_ids_;
  std::map<std::string, apikey::DigestMethod, std::less<>> loaded_;
};

// Makes peppers/<id> (0600) out of 32 random bytes, written as 64 hex digits; a file that is there already is kept as
// it is. The pepper is the file's bytes less one line end. RETURNS: whether the file was made.
bool ensure_pepper_file(const DataDir& directory, const std::string& id);

}  // namespace keyloader
