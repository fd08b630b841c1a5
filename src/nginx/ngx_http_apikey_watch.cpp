// One inotify descriptor per worker. Every (directory, name) on the way to a store's file is watched; events of other
// names in these directories are passed over.
#include "ngx_http_apikey_watch.hpp"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>

namespace apikey::nginx {
namespace {

constexpr std::uint32_t kMask =
    IN_MOVED_TO | IN_CREATE | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::uint32_t kAnyName = IN_Q_OVERFLOW | IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT;
constexpr std::size_t kMaxWatches = 128;
constexpr int kMaxLinks = 40;  // as the kernel

struct Watched {
  int wd = -1;
  std::uint8_t length = 0;
  std::array<char, NAME_MAX> name;
};

struct Watch {
  ngx_log_t* log = nullptr;
  void (*on_change)() noexcept = nullptr;
  int fd = -1;
  bool has_complained = false;
  std::array<Watched, kMaxWatches> names;
  std::size_t count = 0;
};
Watch watch;

void complain(int error, const char* what) noexcept {
  if (!watch.has_complained) {
    watch.has_complained = true;
    ngx_log_error(NGX_LOG_WARN, watch.log, error,
                  "apikey: %s; new snapshots are noticed by looking once a second instead", what);
  }
}

void add_name(const char* directory, std::string_view name) noexcept {
  if (watch.count == kMaxWatches || name.size() > NAME_MAX) {
    complain(0, "there are too many symbolic links on the stores' paths to watch them all");
    return;
  }
  const int wd = inotify_add_watch(watch.fd, directory, kMask);
  if (wd < 0) {
    if (errno != ENOENT) {
      complain(errno, "a store's directory cannot be watched");
    }
    return;
  }
  Watched& added = watch.names[watch.count++];
  added.wd = wd;
  added.length = static_cast<std::uint8_t>(name.size());
  std::copy(name.begin(), name.end(), added.name.begin());
}

// A path that is followed one name at a time. `done` has no symbolic link in it.
struct Walk {
  std::array<char, PATH_MAX> done{"/"};
  std::array<char, PATH_MAX> rest{};
  int links = 0;
};

// Splits the first name off `rest`. RETURNS: an empty one at the end.
std::string_view next_name(const char*& rest) noexcept {
  while (*rest == '/') {
    ++rest;
  }
  const char* begin = rest;
  while (*rest != '\0' && *rest != '/') {
    ++rest;
  }
  return {begin, static_cast<std::size_t>(rest - begin)};
}

void go_up(char* directory) noexcept {
  char* slash = std::strrchr(directory, '/');
  *(slash == directory ? slash + 1 : slash) = '\0';
}

// Appends a name. RETURNS: false when it does not fit.
bool go_down(std::array<char, PATH_MAX>& directory, std::string_view name) noexcept {
  std::size_t length = std::strlen(directory.data());
  if (length + 1 + name.size() >= directory.size()) {
    return false;
  }
  if (length > 1) {
    directory[length++] = '/';
  }
  std::copy(name.begin(), name.end(), directory.data() + length);
  directory[length + name.size()] = '\0';
  return true;
}

// Goes on where the link at `link` leads, then with what was behind it. RETURNS: false for a loop or a path too long.
bool follow_link(Walk& walk, const char* link, const char* behind) noexcept {
  std::array<char, PATH_MAX> target;
  const ssize_t length = readlink(link, target.data(), target.size());
  if (length <= 0 || ++walk.links > kMaxLinks) {
    return false;
  }
  const std::size_t behind_length = std::strlen(behind);
  if (static_cast<std::size_t>(length) + 1 + behind_length >= target.size()) {
    return false;
  }
  target[static_cast<std::size_t>(length)] = '/';
  std::copy_n(behind, behind_length + 1, target.data() + length + 1);
  if (target.front() == '/') {
    walk.done = {"/"};
  }
  walk.rest = target;
  return true;
}

// Adds every (directory, name) whose change can lead the path elsewhere: links, the file, or what is missing.
void follow_path(const char* path) noexcept {
  Walk walk;
  const std::size_t length = std::strlen(path);
  if (length >= walk.rest.size()) {
    return;
  }
  std::copy_n(path, length + 1, walk.rest.data());
  const char* rest = walk.rest.data();
  for (std::string_view name = next_name(rest); !name.empty(); name = next_name(rest)) {
    if (name == "." || name == "..") {
      if (name == "..") {
        go_up(walk.done.data());
      }
      continue;
    }
    std::array<char, PATH_MAX> here = walk.done;
    struct stat found;
    if (!go_down(here, name)) {
      return;
    }
    const bool is_there = lstat(here.data(), &found) == 0;
    if (!is_there || !S_ISDIR(found.st_mode)) {
      add_name(walk.done.data(), name);
    }
    if (!is_there || (!S_ISDIR(found.st_mode) && !S_ISLNK(found.st_mode))) {
      return;
    }
    if (!S_ISLNK(found.st_mode)) {
      walk.done = here;
      continue;
    }
    if (!follow_link(walk, here.data(), rest)) {
      return;
    }
    rest = walk.rest.data();
  }
}

bool is_watched(const inotify_event& event, std::string_view name) noexcept {
  return std::any_of(watch.names.begin(), watch.names.begin() + watch.count, [&](const Watched& watched) {
    return watched.wd == event.wd && std::string_view(watched.name.data(), watched.length) == name;
  });
}

// RETURNS: true when the event tells of a name on the way to a store.
bool is_of_interest(const inotify_event& event) noexcept {
  return (event.mask & kAnyName) != 0 || (event.len > 0 && is_watched(event, event.name));
}

void on_event(ngx_event_t* event) noexcept {
  const auto* connection = static_cast<ngx_connection_t*>(event->data);
  alignas(inotify_event) std::array<char, 16384> buffer;
  bool has_changed = false;
  for (;;) {
    const ssize_t got = read(connection->fd, buffer.data(), buffer.size());
    if (got <= 0) {
      break;
    }
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      const auto* one = static_cast<const inotify_event*>(static_cast<const void*>(buffer.data() + at));
      has_changed |= is_of_interest(*one);
      at += sizeof(inotify_event) + one->len;
    }
  }
  if (has_changed) {
    watch.on_change();
  }
}

}  // namespace

void start_watch(ngx_cycle_t* cycle, void (*on_change)() noexcept) noexcept {
  watch.log = cycle->log;
  watch.on_change = on_change;
  watch.count = 0;
  watch.has_complained = false;
  watch.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watch.fd < 0) {
    complain(errno, "inotify is not to be had");
    return;
  }
  if (ngx_add_channel_event(cycle, watch.fd, NGX_READ_EVENT, on_event) != NGX_OK) {
    complain(0, "there is no connection left for inotify");
    stop_watch();
  }
}

void arm_watch(const MainConf& main) noexcept {
  if (watch.fd < 0) {
    return;
  }
  std::array<int, kMaxWatches> before;
  const std::size_t count_before = watch.count;
  std::transform(watch.names.begin(), watch.names.begin() + count_before, before.begin(),
                 [](const Watched& watched) { return watched.wd; });
  watch.count = 0;
  auto** stores = static_cast<StoreConf**>(main.stores.elts);
  for (ngx_uint_t i = 0; i < main.stores.nelts; ++i) {
    follow_path(static_cast<const char*>(static_cast<const void*>(stores[i]->path.data)));
  }
  for (std::size_t i = 0; i < count_before; ++i) {
    const auto* end = watch.names.begin() + watch.count;
    if (std::none_of(static_cast<const Watched*>(watch.names.begin()), end,
                     [&](const Watched& w) { return w.wd == before[i]; })) {
      inotify_rm_watch(watch.fd, before[i]);
    }
  }
}

void stop_watch() noexcept {
  if (watch.fd >= 0) {
    close(watch.fd);
    watch.fd = -1;
  }
}

}  // namespace apikey::nginx
