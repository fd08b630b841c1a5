// Making, reading and digesting secrets. Called by init, pepper, key create, find, import.
// Must never print one: the only place that does is `key create`, on standard output.
#include "secret.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "apikey/key_form.hpp"
#include "file_descriptor.hpp"
#include "terminal.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kBase62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::size_t kNewPepperBytes = 32;
constexpr std::size_t kShortestWithHint = 24;
constexpr std::size_t kReadBuffer = apikey::kMaxPepperLength + 2;

// Up to `most` bytes; at the end of the input fewer. From a terminal one line.
std::string read_up_to(int fd, std::size_t most) {
  std::string bytes(most, '\0');
  std::size_t length = 0;
  while (length < most) {
    const ssize_t got = read(fd, bytes.data() + length, most - length);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    length += static_cast<std::size_t>(got);
    if (isatty(fd) == 1) {
      break;
    }
  }
  bytes.resize(length);
  return bytes;
}

void drop_line_end(std::string& text) {
  if (!text.empty() && text.back() == '\n') {
    text.pop_back();
    if (!text.empty() && text.back() == '\r') {
      text.pop_back();
    }
  }
}

SecretText read_pepper(const std::filesystem::path& file) {
  const FileDescriptor fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (fd.get() < 0 || fstat(fd.get(), &status) != 0) {
    fail_errno("read the pepper", file);
  }
  if (!S_ISREG(status.st_mode) || (status.st_mode & 0077) != 0) {
    throw Failure(fmt::format("{} is not a file that its owner alone can read; `chmod 600` it", file.string()));
  }
  std::string text = read_up_to(fd.get(), kReadBuffer);
  drop_line_end(text);
  return SecretText{std::move(text)};
}

apikey::DigestMethod method_with(const std::string& id, const std::filesystem::path& file) {
  const SecretText pepper = read_pepper(file);
  apikey::DigestMethod method;
  const std::string_view text = pepper.view();
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  const apikey::Status status = apikey::DigestMethod::with_pepper(id, bytes, method);
  apikey::wipe(std::span<std::uint8_t>{bytes});
  check(status, fmt::format("the pepper {}", file.string()));
  return method;
}

void write_new_pepper(int fd, const std::filesystem::path& file) {
  std::array<std::uint8_t, kNewPepperBytes> random{};
  fill_random(random);
  std::string text = hex(random) + "\n";
  const ssize_t written = write(fd, text.data(), text.size());
  apikey::wipe(std::span<std::uint8_t>{random});
  apikey::wipe(std::span<char>{text.data(), text.size()});
  if (written != static_cast<ssize_t>(text.size()) || fsync(fd) != 0) {
    unlink(file.c_str());
    throw Failure(fmt::format("{} could not be written; make room and try again", file.string()));
  }
  // Keys are worth nothing without it: it must be there after a power cut, as the registry will be.
  const FileDescriptor directory(open(file.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || fsync(directory.get()) != 0) {
    fail_errno("sync", file.parent_path());
  }
}

}  // namespace

void fill_random(std::span<std::uint8_t> bytes) {
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    throw Failure("libcrypto has no random bytes to give; no key was made");
  }
}

SecretText make_secret_key(std::string_view prefix, std::string_view env) {
  std::array<char, apikey::kSecretLength> secret{};
  std::array<std::uint8_t, 2 * apikey::kSecretLength> random{};
  std::size_t length = 0;
  while (length < secret.size()) {
    fill_random(random);
    for (const std::uint8_t byte : random) {
      // 248 = 4 · 62: bytes above would make the first characters of the alphabet likelier than the others.
      if (byte < 248 && length < secret.size()) {
        secret.at(length++) = kBase62[byte % kBase62.size()];
      }
    }
  }
  std::string text(apikey::kMaxOwnKeyLength, '\0');
  text.resize(apikey::compose_key(prefix, env, {secret.data(), secret.size()}, {text.data(), text.size()}).size());
  apikey::wipe(std::span<char>{secret});
  apikey::wipe(std::span<std::uint8_t>{random});
  return SecretText{std::move(text)};
}

bool is_valid_hint(std::string_view hint) {
  return hint.size() == kHintLength &&
         std::all_of(hint.begin(), hint.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

std::string hint_of(std::string_view key) {
  if (key.size() < kShortestWithHint || !is_valid_hint(key.substr(key.size() - kHintLength))) {
    return {};
  }
  return std::string{key.substr(key.size() - kHintLength)};
}

apikey::KeyId new_key_id() {
  std::array<std::uint8_t, 7> random{};
  fill_random(random);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  return apikey::make_key_id(static_cast<std::uint64_t>(ms), random);
}

SecretText read_secret(int fd, std::string_view where) {
  std::string text = read_up_to(fd, apikey::kMaxKeyLength + 3);
  drop_line_end(text);
  const std::size_t length = text.size();
  SecretText secret{std::move(text)};
  if (length == 0) {
    throw UsageError(fmt::format("there is no key {0}", where));
  }
  if (length > apikey::kMaxKeyLength) {
    throw Failure(fmt::format("what stands {} is longer than a key can be ({} bytes)", where, apikey::kMaxKeyLength));
  }
  return secret;
}

SecretText read_secret_from_stdin() {
  const HiddenInput hidden;
  return read_secret(STDIN_FILENO, "on standard input");
}

DigestMethods::DigestMethods(const DataDir& directory, Registry& registry)
    : directory_(directory), current_(kPlainMethod) {
  for (const Pepper& pepper : registry.peppers()) {
    pepper_ids_.push_back(pepper.id);
    if (pepper.is_current) {
      current_ = "hmac-sha256:" + pepper.id;
    }
  }
}

std::vector<std::string> DigestMethods::names() const {
  std::vector<std::string> names;
  for (const std::string& id : pepper_ids_) {
    names.push_back("hmac-sha256:" + id);
  }
  names.emplace_back(kPlainMethod);
  return names;
}

bool DigestMethods::knows(std::string_view method) const {
  const auto all = names();
  return std::find(all.begin(), all.end(), method) != all.end();
}

apikey::Digest DigestMethods::digest(const std::string& method, std::string_view key) {
  auto found = loaded_.find(method);
  if (found == loaded_.end()) {
    const std::size_t colon = method.find(':');
    apikey::DigestMethod loaded;
    if (colon != std::string::npos) {
      const std::string id = method.substr(colon + 1);
      loaded = method_with(id, directory_.peppers() / id);
    }
    found = loaded_.emplace(method, loaded).first;
  }
  return found->second(key);
}

bool ensure_pepper_file(const DataDir& directory, const std::string& id) {
  if (!apikey::is_valid_pepper_id(id)) {
    throw UsageError(fmt::format("\"{}\" cannot name a pepper: 1-{} of a-z 0-9 _ -", id, apikey::kMaxPepperIdLength));
  }
  if (mkdir(directory.peppers().c_str(), 0700) != 0 && errno != EEXIST) {
    fail_errno("make", directory.peppers());
  }
  const std::filesystem::path file = directory.peppers() / id;
  const FileDescriptor fd(open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  const bool is_new = fd.get() >= 0;
  if (!is_new && errno != EEXIST) {
    fail_errno("make", file);
  }
  if (is_new) {
    write_new_pepper(fd.get(), file);
  }
  static_cast<void>(method_with(id, file));
  return is_new;
}

}  // namespace keyloader
