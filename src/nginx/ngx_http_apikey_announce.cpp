// Writing announcements. The store's directory may belong to somebody with fewer rights than the master: nothing in it
// is followed, and nothing but a file of `nodes` is written.
#include "ngx_http_apikey_announce.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "apikey/fold64.hpp"
#include "ngx_http_apikey_runtime.hpp"
#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

constexpr mode_t kDirectoryMode = S_IRWXU | S_IRGRP | S_IXGRP | S_IROTH | S_IXOTH;
constexpr mode_t kFileMode = S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH;

// Opens `nodes` in the store's directory, made if need be for whoever owns that. RETURNS: -1 when it is not to be had.
int open_nodes(const char* directory) noexcept {
  const int parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat owner {};
  if (parent < 0 || fstat(parent, &owner) != 0) {
    if (parent >= 0) {
      close(parent);
    }
    return -1;
  }
  const bool is_made = mkdirat(parent, "nodes", kDirectoryMode) == 0;
  const int fd = openat(parent, "nodes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  close(parent);
  struct stat found {};
  if (fd < 0 || fstat(fd, &found) != 0) {
    return fd;
  }
  if (is_made) {
    static_cast<void>(fchown(fd, owner.st_uid, owner.st_gid) != 0);
    static_cast<void>(fchmod(fd, kDirectoryMode));
  }
  return fd;
}

void put(int directory, const char* name, const char* temporary, const ngx_str_t& text) noexcept {
  static_cast<void>(unlinkat(directory, temporary, 0));
  const int fd = openat(directory, temporary, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, kFileMode);
  if (fd < 0) {
    return;
  }
  static_cast<void>(fchmod(fd, kFileMode));
  const bool is_written = write(fd, text.data, text.len) == static_cast<ssize_t>(text.len);
  close(fd);
  if (!is_written || renameat(directory, temporary, directory, name) != 0) {
    static_cast<void>(unlinkat(directory, temporary, 0));
  }
}

// Two masters with the same id, each with a runtime directory of its own (containers), have an announcement each.
// keyloader calls it so, too (nodes.cpp).
void announcement_name(const Node& node, std::string_view state, std::string_view suffix,
                       std::span<u_char> out) noexcept {
  std::array<u_char, 64> end;
  *ngx_snprintf(end.data(), end.size() - 1, ".%016xL%*s", fold64(std::as_bytes(std::span{state})), suffix.size(),
                suffix.data()) = '\0';
  node_name(node.place, node.file->number, text_of(end.data()), out);
}

void add_member(Text& json, std::string_view name, std::string_view value, bool is_first = false) noexcept {
  json.add(is_first ? "{" : ",");
  json.add_json(name);
  json.add(":");
  json.add_json(value);
}

}  // namespace

void announce_node(ngx_cycle_t* cycle, const MainConf& main, const Node& node) noexcept {
  const auto* core = static_cast<ngx_core_conf_t*>(static_cast<void*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module)));
  std::array<u_char, kMaxNodeName> name;
  std::array<u_char, kMaxNodeName> temporary;
  const std::string_view state = view(node.path);
  announcement_name(node, state, ".json", name);
  announcement_name(node, state, ".json.new", temporary);
  constexpr std::string_view suffix = ".state";
  auto* const* stores = static_cast<StoreConf**>(main.stores.elts);
  for (ngx_uint_t i = 0; i < main.stores.nelts; ++i) {
    const StoreConf& store = *stores[i];
    const ngx_str_t directory = directory_of(cycle->pool, store.path);
    const int nodes = directory.len == 0 ? -1 : open_nodes(text_of(directory.data));
    if (nodes < 0) {
      continue;
    }
    Text json(cycle->pool);
    add_member(json, "state", state, true);
    json.add(",\"inbox\":");
    Text inbox(cycle->pool);
    inbox.add(state.substr(0, state.size() - suffix.size()));
    inbox.add(".inbox");
    json.add_json(view(inbox.str()));
    add_member(json, "pid_file", view(core->pid));
    add_member(json, "store", view(store.path));
    add_member(json, "name", view(store.name));
    json.add("}\n");
    if (json.ok() && inbox.ok()) {
      put(nodes, text_of(name.data()), text_of(temporary.data()), json.str());
    }
    close(nodes);
  }
}

}  // namespace apikey::nginx
