// Finding and removing unix sockets that nobody listens on. nginx removes its sockets when it ends, but not when it is
// killed; the next one cannot bind then, though `nginx -t` finds nothing wrong.
// Must never take away a socket that somebody uses: connecting to it has to be refused by the kernel, twice.
#include "ngx_http_apikey_sockets.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace apikey::nginx {
namespace {

// Between two looks: a server that starts binds first and listens then.
constexpr ngx_msec_t kBindToListen = 50;

bool is_answering(const MainConf& main, const ngx_http_conf_addr_t& address) noexcept {
  const auto servers = elements<ngx_http_core_srv_conf_t*>(address.servers);
  const auto answering = elements<ngx_http_core_srv_conf_t*>(main.answering);
  return std::find_first_of(servers.begin(), servers.end(), answering.begin(), answering.end()) != servers.end();
}

bool add_path(ngx_pool_t* pool, MainConf& main, const ngx_http_conf_addr_t& address) noexcept {
  const auto& name = *static_cast<const sockaddr_un*>(static_cast<const void*>(address.opt.sockaddr));
  const std::size_t length = strnlen(name.sun_path, sizeof name.sun_path);
  auto* path = push_to<ngx_str_t>(&main.own_sockets);
  auto* text = static_cast<u_char*>(ngx_pnalloc(pool, length + 1));
  if (path == nullptr || text == nullptr) {
    return false;
  }
  std::copy_n(name.sun_path, length, text);
  text[length] = '\0';
  *path = {length, text};
  return true;
}

// A name in a directory that is held open: the same one at each look, whoever renames what leads to it.
class Name {
 public:
  explicit Name(const char* path) noexcept {
    const char* slash = std::strrchr(path, '/');
    name_ = slash == nullptr ? path : slash + 1;
    std::array<char, sizeof(sockaddr_un::sun_path) + 1> directory{"."};
    if (slash != nullptr) {
      std::copy(path, slash + 1, directory.begin());
      directory[static_cast<std::size_t>(slash + 1 - path)] = '\0';
    }
    fd_ = open(directory.data(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  ~Name() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  Name(const Name&) = delete;
  Name& operator=(const Name&) = delete;

  [[nodiscard]] bool is_own_socket(struct stat& found) const noexcept {
    return fd_ >= 0 && fstatat(fd_, name_, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(found.st_mode) &&
           found.st_uid == geteuid();
  }
  // RETURNS: true when the kernel says that nobody listens.
  [[nodiscard]] bool refuses() const noexcept;
  [[nodiscard]] bool remove() const noexcept { return unlinkat(fd_, name_, 0) == 0; }

 private:
  int fd_;
  const char* name_;
};

bool Name::refuses() const noexcept {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const int length = std::snprintf(name.sun_path, sizeof name.sun_path, "/proc/self/fd/%d/%s", fd_, name_);
  if (length < 0 || static_cast<std::size_t>(length) >= sizeof name.sun_path) {
    return false;
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return false;
  }
  const void* address = &name;
  const bool is_refused = connect(fd, static_cast<const sockaddr*>(address), sizeof name) != 0 && errno == ECONNREFUSED;
  close(fd);
  return is_refused;
}

void remove_if_stale(const ngx_str_t& path, ngx_log_t* log) noexcept {
  const Name name(text_of(path.data));
  struct stat before {};
  if (!name.is_own_socket(before) || !name.refuses()) {
    return;
  }
  ngx_msleep(kBindToListen);
  struct stat after {};
  const bool is_same = name.is_own_socket(after) && before.st_dev == after.st_dev && before.st_ino == after.st_ino;
  if (is_same && name.refuses() && name.remove()) {
    ngx_log_error(NGX_LOG_NOTICE, log, 0, "apikey: removed the socket %V, which an nginx that was killed has left",
                  &path);
  }
}

}  // namespace

bool note_answering(ngx_conf_t* cf, MainConf& main) noexcept {
  auto* server = static_cast<ngx_http_core_srv_conf_t*>(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
  const auto known = elements<ngx_http_core_srv_conf_t*>(main.answering);
  if (!known.empty() && known.back() == server) {
    return true;
  }
  auto** place = push_to<ngx_http_core_srv_conf_t*>(&main.answering);
  if (place != nullptr) {
    *place = server;
  }
  return place != nullptr;
}

bool find_own_sockets(ngx_conf_t* cf, MainConf& main) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  if (core.ports == nullptr) {
    return true;
  }
  for (const ngx_http_conf_port_t& port : elements<ngx_http_conf_port_t>(*core.ports)) {
    if (port.family != AF_UNIX) {
      continue;
    }
    for (const ngx_http_conf_addr_t& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
      if (is_answering(main, address) && !add_path(cf->pool, main, address)) {
        return false;
      }
    }
  }
  return true;
}

void remove_stale_sockets(const ngx_cycle_t& cycle, const MainConf& main) noexcept {
  // A cycle before this one has sockets in a reload, and in an upgrade, which inherits them.
  const bool has_inherited = cycle.old_cycle != nullptr && cycle.old_cycle->listening.nelts != 0;
  if (ngx_test_config || has_inherited) {
    return;
  }
  for (const ngx_str_t& path : elements<ngx_str_t>(main.own_sockets)) {
    remove_if_stale(path, cycle.log);
  }
}

}  // namespace apikey::nginx
