# frozen_string_literal: true

# Runs the conformance cases through the loader: `ruby conformance.rb URL [LUA]`, on an empty server. LUA is the folder
# of the scripts; the cases are in LUA/conformance, and their README has the format.

require 'json'
require_relative 'redisq'
require_relative 'conformance/keyspace'

module Conformance
  # One case of a file, and how it went.
  class Case
    def initialize(file, content)
      @file = file
      @content = content
    end

    def to_s
      "#{@file['script']}: #{@content['name']}"
    end

    # What differs, in lines; none when the case holds.
    def differences(redis, scripts)
      redis.call('FLUSHALL')
      Value.read(@content.fetch('given', [])).each { |command| redis.call(*command) }
      seconds, micros = redis.call('TIME').map(&:to_i)
      now = (seconds * 1000) + (micros / 1000)
      expected = Keyspace.of(redis).changed(@content.fetch('then', []), now)
      steps = @content['steps'].each.with_index(1).filter_map { |step, i| difference(step, i, scripts, now) }
      steps + expected.differences(Keyspace.of(redis))
    end

    private

    def difference(step, place, scripts, now)
      keys, argv = [step.fetch('keys', @file['keys']), step['argv']].map { |list| Value.read(list) }
      reply = scripts.call(step.fetch('script', @file['script']), keys, argv)
      told(place, step, reply.inspect) if step.key?('error') || !Value.same?(Value.read(step['reply'], now), reply)
    rescue Redisq::Error, Redis::CommandError => e
      told(place, step, e.message) unless refused?(e, step['error'])
    end

    def told(place, step, answer)
      "step #{place}: #{answer}, expected #{step['error'] || step['reply'].inspect}"
    end

    def refused?(error, code)
      return error.message.include?(code) if code == 'WRONGTYPE' # Redis 6 wraps what a command in a script says

      code == (Redisq::REFUSALS.key(error.class) || error.message.b[/\A\S+/])
    end
  end

  def self.cases(folder)
    Dir.glob(File.join(folder, 'conformance', '*', '*.json')).sort.flat_map do |path|
      file = JSON.parse(File.read(path, encoding: 'UTF-8'))
      file['cases'].map { |content| Case.new(file, content) }
    end
  end

  # Prints what differs and how many cases there are; true when all hold.
  def self.run(redis, folder)
    scripts = Redisq::Scripts.new(redis, folder)
    all = cases(folder)
    differing = all.count { |one| report(one, one.differences(redis, scripts)) }
    puts "#{all.size} cases, #{differing} differ"
    all.any? && differing.zero?
  ensure
    redis.call('FLUSHALL')
  end

  def self.report(one, lines)
    puts one, lines.map { |line| "  #{line[0, 2000]}" } if lines.any?
    lines.any?
  end
  private_class_method :report
end

if $PROGRAM_NAME == __FILE__
  url, folder = ARGV
  abort "usage: ruby #{$PROGRAM_NAME} URL [LUA]" unless url
  redis = Redis.new(url: url)
  abort "#{url} has keys: give an empty server, each case empties it again" if redis.call('INFO', 'keyspace')[/^db/]
  exit Conformance.run(redis, folder || Redisq::FOLDER)
end
