// Peppers: the master reads each file while it configures, keeps the hash states made from it, and wipes the bytes.
// Called by set_store() alone. Workers never open these files; nothing of a pepper is ever logged.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_runtime.hpp"

namespace apikey::nginx {
namespace {

// An open file that closes itself.
class File {
 public:
  // O_NONBLOCK: a FIFO must not hold up the master; fstat() refuses it next.
  explicit File(const char* path) noexcept : fd_(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

// One byte more than the longest pepper and its newline, so that a longer file is noticed.
struct PepperBytes {
  std::array<std::uint8_t, kMaxPepperLength + 2> bytes{};
  std::size_t length = 0;

  PepperBytes() noexcept = default;
  ~PepperBytes() { wipe(std::span<std::uint8_t>(bytes)); }
  PepperBytes(const PepperBytes&) = delete;
  PepperBytes& operator=(const PepperBytes&) = delete;
};

// Whoever owns the directory of the snapshot says which keys are good anyway. RETURNS: root, where it cannot be found.
uid_t store_owner(ngx_pool_t* pool, const StoreConf& store) noexcept {
  const ngx_str_t directory = directory_of(pool, store.path);
  struct stat found {};
  return directory.len != 0 && stat(text_of(directory.data), &found) == 0 ? found.st_uid : 0;
}

char* check_trust(ngx_conf_t* cf, const StoreConf& store, const File& file, const ngx_str_t& path) noexcept {
  struct stat info {};
  if (::fstat(file.fd(), &info) != 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, errno, "apikey_store: pepper file \"%V\" cannot be examined", &path);
    return conf_error();
  }
  if (!S_ISREG(info.st_mode)) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_store: pepper file \"%V\" is not a regular file", &path);
    return conf_error();
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "apikey_store: pepper file \"%V\" is open to group or others (mode 0%ui%ui%ui), run chmod 0600 on it", &path,
        static_cast<ngx_uint_t>((info.st_mode >> 6) & 7U), static_cast<ngx_uint_t>((info.st_mode >> 3) & 7U),
        static_cast<ngx_uint_t>(info.st_mode & 7U));
    return conf_error();
  }
  if (info.st_uid != 0 && info.st_uid != ::geteuid() && info.st_uid != store_owner(cf->pool, store)) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_store: pepper file \"%V\" belongs to user %ui, who does not own the directory of \"%V\" "
                       "either, make root its owner (chown root)",
                       &path, static_cast<ngx_uint_t>(info.st_uid), &store.path);
    return conf_error();
  }
  return NGX_CONF_OK;
}

// Everything in the file less one trailing newline.
char* read_pepper(ngx_conf_t* cf, const StoreConf& store, const ngx_str_t& path, PepperBytes& pepper) noexcept {
  const File file(view(path).data());
  if (file.fd() < 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, errno, "apikey_store: pepper file \"%V\" cannot be opened", &path);
    return conf_error();
  }
  if (check_trust(cf, store, file, path) != NGX_CONF_OK) {
    return conf_error();
  }
  while (pepper.length < pepper.bytes.size()) {
    const ssize_t n = ::read(file.fd(), pepper.bytes.data() + pepper.length, pepper.bytes.size() - pepper.length);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, errno, "apikey_store: pepper file \"%V\" cannot be read", &path);
      return conf_error();
    }
    if (n == 0) {
      break;
    }
    pepper.length += static_cast<std::size_t>(n);
  }
  if (pepper.length > 0 && pepper.bytes[pepper.length - 1] == '\n') {
    --pepper.length;
  }
  return NGX_CONF_OK;
}

// Two methods of one id are the same when they give the same digest.
bool is_same_method(const DigestMethod& a, const DigestMethod& b) noexcept {
  constexpr std::string_view probe = "apikey";
  return a(probe) == b(probe);
}

// RETURNS: the method's index in MainConf::methods; kMaxConfiguredMethods with an error logged.
std::size_t register_method(ngx_conf_t* cf, MainConf& main, const DigestMethod& method,
                            const ngx_str_t& path) noexcept {
  const ngx_str_t id = to_ngx_str(method.pepper_id());
  for (std::size_t i = 1; i < main.method_count; ++i) {
    if (main.methods[i].pepper_id() != method.pepper_id()) {
      continue;
    }
    if (is_same_method(main.methods[i], method)) {
      return i;
    }
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_store: pepper \"%V\" of file \"%V\" differs from the pepper of that id in another "
                       "apikey_store, give each pepper an id of its own",
                       &id, &path);
    return kMaxConfiguredMethods;
  }
  if (main.method_count == kMaxConfiguredMethods) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_store: pepper \"%V\" is one too many, all stores together may have %uz peppers", &id,
                       kMaxConfiguredMethods - 1);
    return kMaxConfiguredMethods;
  }
  main.methods[main.method_count] = method;
  return main.method_count++;
}

}  // namespace

char* add_pepper(ngx_conf_t* cf, MainConf& main, StoreConf& store, ngx_str_t value) noexcept {
  const std::size_t colon = view(value).find(':');
  const std::string_view id = view(value).substr(0, colon);
  if (colon == std::string_view::npos || !is_valid_pepper_id(id) || colon + 1 == value.len) {
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "apikey_store: \"pepper=%V\" is not <id>:<file>, write for example pepper=p1:peppers/p1; an id is "
        "1 to %uz characters of a-z, 0-9, _ and -",
        &value, kMaxPepperIdLength);
    return conf_error();
  }
  for (std::size_t i = 0; i < store.method_count; ++i) {
    if (main.methods[store.methods[i]].pepper_id() == id) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "apikey_store: \"pepper=%V\" names an id that this line has named before, remove one", &value);
      return conf_error();
    }
  }

  ngx_str_t path{value.len - colon - 1, value.data + colon + 1};
  if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
    return conf_error();
  }
  PepperBytes pepper;
  if (read_pepper(cf, store, path, pepper) != NGX_CONF_OK) {
    return conf_error();
  }
  DigestMethod method;
  if (!DigestMethod::with_pepper(id, std::span(pepper.bytes).first(pepper.length), method).ok()) {
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "apikey_store: pepper file \"%V\" %s, make one of %uz to %uz bytes: (umask 077; openssl rand -hex 32 > %V)",
        &path, pepper.length == 0 ? "is empty" : "is too short or too long", kMinPepperLength, kMaxPepperLength, &path);
    return conf_error();
  }
  const std::size_t index = register_method(cf, main, method, path);
  if (index == kMaxConfiguredMethods) {
    return conf_error();
  }
  store.methods[store.method_count++] = static_cast<std::uint8_t>(index);
  return NGX_CONF_OK;
}

}  // namespace apikey::nginx
