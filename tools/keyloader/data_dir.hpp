// The directory of a node: where its files lie, who may read them, how they are made.
// Called by every command. Creates nothing world-readable, follows no link when it creates.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "registry/registry.hpp"

namespace keyloader {

class DataDir {
 public:
  explicit DataDir(std::filesystem::path path) : path_(std::move(path)) {}

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path registry_file() const { return path_ / "registry.db"; }
  [[nodiscard]] std::filesystem::path snapshot_file() const { return path_ / "keys.mdb"; }
  [[nodiscard]] std::filesystem::path usage_file() const { return path_ / "usage.db"; }
  [[nodiscard]] std::filesystem::path usage_socket() const { return path_ / "usage.sock"; }
  [[nodiscard]] std::filesystem::path history() const { return path_ / "history"; }
  [[nodiscard]] std::filesystem::path peppers() const { return path_ / "peppers"; }

  // What a registry that is gone has left, and a node that only installs snapshots does not have; empty: nothing.
  // Peppers and publish.lock are no such thing.
  [[nodiscard]] std::filesystem::path trace_of_registry() const;

  // Makes the directory and its history/ (2750, group of nginx's workers). `group`: empty for www-data or nginx,
  // whichever there is. RETURNS: a warning to show, or nothing.
  std::string make(const std::string& group) const;

  // Lets the group that may read registry.db read this database and its journals, too; no group may: nothing.
  void share_as_registry(const std::filesystem::path& database) const;

  [[nodiscard]] std::unique_ptr<Registry> create_registry(const std::function<void(Change&)>& fill) const;
  [[nodiscard]] std::unique_ptr<Registry> open_registry() const;

 private:
  std::filesystem::path path_;
};

// Makes it, 0700. RETURNS: false when it is there already. Throws Failure for what is no directory.
bool make_directory(const std::filesystem::path& path);

// The group nginx's workers run as: this one, which must be there, or www-data or nginx, if there is one.
[[nodiscard]] std::optional<gid_t> workers_group(const std::string& wanted);

// Makes a database and its two journals 0640, of this group.
void let_group_read(const std::filesystem::path& database, gid_t group);

// "cannot make /x: Permission denied": a Failure out of errno.
[[noreturn]] void fail_errno(std::string_view doing, const std::filesystem::path& path);

// All of it, whatever interrupts; throws as fail_errno().
void write_all(int fd, std::string_view bytes, const std::filesystem::path& path);

// Throws describe(status) with `doing` before it and what the operating system said behind it.
void check(const apikey::Status& status, std::string_view doing);
[[nodiscard]] std::string sentence_of(const apikey::Status& status);

}  // namespace keyloader
