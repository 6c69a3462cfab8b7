// Lines, rooms and slots that clients share.
import { describe, expect, it } from 'vitest';
import { Line, type Place } from '../../src/api/shares/line.ts';
import { Room } from '../../src/api/shares/room.ts';
import { Slots } from '../../src/api/shares/slots.ts';

/** What is served, in order, until nothing waits. */
function served(line: Line<string>): string[] {
  const all: string[] = [];
  for (let place = line.next(); place; place = line.next()) all.push(place.work);
  return all;
}

describe('a line', () => {
  it('serves each client in turn, and what one sent in its order', () => {
    const line = new Line<string>(100);
    for (const work of ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1']) line.add(work[0] as string, work);
    expect(served(line)).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4']);
    expect(line.size).toBe(0);
  });

  it('counts what work costs: who asks for much at a time has fewer turns', () => {
    const line = new Line<string>(100, 10);
    for (let index = 0; index < 10; index += 1) line.add('large', 'large', 40);
    for (let index = 0; index < 40; index += 1) line.add('small', 'small', 5);
    const first = Array.from({ length: 27 }, () => line.next()?.work);
    expect(first.filter((work) => work === 'large')).toHaveLength(3); // 120 of 240
  });

  it('has a place for a client that has few, whatever number of others fill it', () => {
    const line = new Line<string>(100);
    const pushedOut: string[] = [];
    const add = (client: string) => line.add(client, client, 1, () => pushedOut.push(client));
    for (let index = 0; index < 150; index += 1) add('first');
    expect([line.size, pushedOut]).toEqual([100, []]);
    for (let client = 0; client < 20; client += 1) {
      for (let index = 0; index < 150; index += 1) add(`greedy ${client}`);
    }
    for (let index = 0; index < 4; index += 1) expect(add('within')).toBeDefined();
    expect(line.size).toBe(100);
    expect(pushedOut).not.toContain('within');
    for (let index = 0; index < 150; index += 1) add('first');
    expect(served(line).filter((client) => client === 'within')).toHaveLength(4);
  });

  it('gives up a place at once, so that those who left keep nobody out', () => {
    const line = new Line<string>(10);
    for (let round = 0; round < 100; round += 1) {
      const place = line.add('impatient', 'gone');
      expect(place).toBeDefined();
      line.leave(place as Place<string>);
      line.leave(place as Place<string>);
    }
    line.add('impatient', 'here');
    expect(line.size).toBe(1);
    expect(served(line)).toEqual(['here']);
  });

  it('passes over clients that may not have a turn now', () => {
    const line = new Line<string>(10);
    for (const work of ['a1', 'b1']) line.add(work[0] as string, work);
    expect(line.next((client) => client === 'b')?.work).toBe('b1');
    expect(line.next((client) => client === 'b')).toBeUndefined();
    expect(line.next()?.work).toBe('a1');
  });
});

describe('a room', () => {
  const holdings = (room: Room) => {
    const refused: string[] = [];
    const hold = (client: string, name: string, bytes: number) => {
      const holding = room.holding(client, () => refused.push(name));
      holding.set(bytes);
      return holding;
    };
    return { refused, hold };
  };

  it('refuses the newest where one client alone fills it', () => {
    const { refused, hold } = holdings(new Room(100));
    hold('a', 'first', 60);
    hold('a', 'second', 60);
    expect(refused).toEqual(['second']);
  });

  it('takes from the client that holds the most, the oldest first, what another needs', () => {
    const { refused, hold } = holdings(new Room(100));
    for (const name of ['a1', 'a2', 'a3', 'a4', 'a5']) hold('a', name, 20);
    hold('b', 'b1', 20);
    expect(refused).toEqual(['a1']);
    hold('b', 'b2', 30);
    expect(refused).toEqual(['a1', 'a2', 'a3']);
    hold('b', 'b3', 30); // b would have more than a
    expect(refused).toEqual(['a1', 'a2', 'a3', 'b3']);
  });

  it('has room for a client within its share beside any number of others that fill it', () => {
    const { refused, hold } = holdings(new Room(1000));
    for (let round = 0; round < 20; round += 1) {
      for (let client = 0; client < 9; client += 1) hold(`greedy ${client}`, 'greedy', 25);
    }
    hold('within', 'within', 50);
    hold('within', 'within', 50);
    for (let client = 0; client < 9; client += 1) hold(`greedy ${client}`, 'greedy', 25);
    expect(refused).not.toContain('within');
  });

  it('forgets what ended', () => {
    const { refused, hold } = holdings(new Room(100));
    for (let round = 0; round < 50; round += 1) hold('a', 'a', 90).set(0);
    hold('b', 'b', 100);
    expect(refused).toEqual([]);
  });
});

describe('slots', () => {
  it('give a client some, and one while half of all are taken', () => {
    const slots = new Slots(8, 3);
    const mine = [slots.take('a'), slots.take('a'), slots.take('a'), slots.take('a')];
    expect(mine.map((slot) => slot !== undefined)).toEqual([true, true, true, false]);
    expect(slots.take('b')).toBeDefined();
    expect(slots.take('b')).toBeUndefined();
    for (const client of ['c', 'd', 'e', 'f']) expect(slots.take(client)).toBeDefined();
    expect(slots.take('g')).toBeUndefined();
    mine[0]?.();
    expect(slots.take('g')).toBeDefined();
  });
});
